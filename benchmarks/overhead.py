"""What mtl costs beside the training: each trial's bookkeeping, and the start of its commands.

A trial's overhead is everything between the beginning of the first trial and the end of the last,
divided by the trials, less what they spent in steps and evaluations (their own `train/seconds` and
`dev/seconds`): to ask, to open the run, to record points, artifacts and the model, to tell. It is
given against a trial of a minute. A start is a whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import machine
from rich.console import Console
from rich.table import Table

_MTL = Path(sys.executable).parent / "mtl"
_TRIAL = 60.0  # seconds, that the overhead is given against
_NAME = "overhead"
_STUDY = """
description = "trials whose bookkeeping is measured"
sampler = "random"
trials = {trials}
[config]
backbone = {backbone}
"data.path" = {data}
"train.epochs" = 3
"train.steps_per_epoch" = 20
"train.mode" = "last-linear-layer"
[search]
"lora.rank" = [1, 2, 4, 8]
"""


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mtl-overhead-") as folder:
        home = Path(folder)
        environment = {**os.environ, "MTL_HOME": str(home / "home"), "OMP_NUM_THREADS": "1"}
        for name in ("MLFLOW_TRACKING_URI", "MTL_STORAGE"):
            environment.pop(name, None)
        file = home / f"{_NAME}.toml"
        file.write_text(
            _STUDY.format(
                trials=options.trials,
                backbone=json.dumps(options.backbone),
                data=json.dumps(options.data),
            )
        )
        run = [_MTL, "study", "run", file, "--jobs", "1"]
        subprocess.run(run, env=environment, check=True, stdout=subprocess.DEVNULL)
        rows = [_overhead(home / "home")]
        rows += [_start(words, limit, options, environment) for words, limit in _STARTS]
    _print(rows)
    record = {
        "trials": options.trials,
        **machine("optuna", "mlflow", "torch"),
        "rows": rows,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    return 0


_STARTS = ((("--help",), 0.3), (("study", "status", _NAME), 1.0))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--starts", type=int, default=9)
    parser.add_argument("--data", default="demo", help="folder with the data files, or demo")
    parser.add_argument("--backbone", default="demo", help="folder, Hugging Face id, or demo")
    parser.add_argument("-o", "--output", type=Path, default=Path("overhead.json"))
    return parser.parse_args()


def _overhead(home: Path) -> dict:
    """Return seconds a trial beside its training, as a share of a minute."""
    import optuna
    from mlflow import MlflowClient

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=_NAME, storage=f"sqlite:///{home / 'optuna.db'}")
    trials = study.get_trials(deepcopy=False)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    busy = [_busy(client, trial.user_attrs["mlflow_run_id"]) for trial in trials]
    # The first trial waits for the worker's imports, which belong to the study's start.
    span = trials[-1].datetime_complete - trials[0].datetime_complete
    each = span.total_seconds() / (len(trials) - 1)
    seconds = each - sum(busy[1:]) / (len(trials) - 1)
    return {
        "what": "overhead of a trial",
        "median": seconds,
        "unit": "s",
        "given as": f"{seconds / _TRIAL:.1%} of a trial of {_TRIAL:.0f} s",
        "target": "3%",
        "met": seconds / _TRIAL < 0.03,
    }


def _busy(client, run_id: str) -> float:
    """Return the seconds that a run spent in steps and evaluations."""
    steps = client.get_metric_history(run_id, "train/seconds")[-1].value
    return steps + sum(point.value for point in client.get_metric_history(run_id, "dev/seconds"))


def _start(
    words: tuple[str, ...], limit: float, options: argparse.Namespace, environment: dict[str, str]
) -> dict:
    """Return how long a command takes, as a whole process."""
    seconds = []
    for _ in range(options.starts + 1):
        began = time.perf_counter()
        command = [_MTL, *words]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    seconds = seconds[1:]  # the first reads the files from the disk
    middle = median(seconds)
    return {
        "what": f"mtl {' '.join(words)}",
        "median": middle,
        "unit": "s",
        "given as": f"{min(seconds):.2f} to {max(seconds):.2f} s",
        "target": f"{limit} s",
        "met": middle < limit,
    }


def _print(rows: list[dict]) -> None:
    table = Table("", "median", "", "target", "met")
    for row in rows:
        told = "yes" if row["met"] else "no"
        table.add_row(
            row["what"], f"{row['median']:.2f} {row['unit']}", row["given as"], row["target"], told
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    sys.exit(main())
