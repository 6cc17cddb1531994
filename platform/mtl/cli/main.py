"""The command line ``mtl``: parse, call, print; no logic.

Nothing heavy is imported here or at the top of those modules: ``mtl --help`` must be quick.
"""

import os
import signal

import click

from .backbone import backbone
from .common import OrderedGroup
from .data import data
from .doctor import doctor
from .exits import run
from .gc import gc
from .params import params
from .predict import predict
from .study import study
from .train import train
from .ui import ui


@click.group(
    cls=OrderedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="mtl", message="%(prog)s %(version)s")
def cli() -> None:
    """Optuna studies over multi-task minBERT trainings, every trial recorded in MLflow.

    Start with: mtl study run lora_sweep
    """


for _command in (study, train, predict, params, ui, data, backbone, doctor, gc):
    cli.add_command(_command)


def main() -> None:
    """Run the command line and leave with its exit code."""
    from ..common import process
    from ..common.masking import mask_logging
    from ..common.signals import SIGNALS
    from ..storage.home import settle_user

    process.tune_gc()
    mask_logging()
    settle_user()
    # Threads that wait shall sleep: where others use the cores, too, those that spin make a step
    # several times as long. Read when torch is loaded; workers inherit it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = run(cli)
    # It is said how it ended; no signal ends it otherwise now.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    process.prepare_exit()
    raise SystemExit(code)
