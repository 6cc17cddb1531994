"""``mtl study promote``: a trial's model into MLflow's registry."""

import json
from typing import TYPE_CHECKING

import click

from .common import json_option, print_json, reserved_stdout

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("name")
@click.option("--trial", "number", type=click.IntRange(min=0), help="This trial, not the best one.")
@json_option
def promote(name: str, number: int | None, as_json: bool) -> None:
    """Register the best trial's model in MLflow as the champion.

    It loads by mlflow.pyfunc.load_model("models:/NAME@champion"), and answers to plain sentences.
    """
    from ..common.masking import masked
    from ..storage.home import Home
    from ..terminal.console import busy
    from ..tracking.registry import promote as register
    from .payloads import open_study

    home = Home.resolve()
    with reserved_stdout(as_json), busy("Registering the model"):
        promotion = register(home, open_study(name), number)
    if as_json:
        print_json(vars(promotion))
        return
    now = "is now" if promotion.new else "was already"
    click.echo(
        f"trial {promotion.trial} of {name} (score {promotion.score:.3f}) {now} the champion: "
        f"version {promotion.version} of the registered model {promotion.name}"
    )
    click.echo("\nIn Python:")
    for line in _recipe(masked(home.mlflow_uri), promotion.uri, home.path):
        click.echo(f"  {line}")


def _recipe(store: str, model: str, home: "Path") -> list[str]:
    """Return what a user of MLflow types to predict with a registered model."""
    from urllib.parse import unquote

    given = json.dumps(model, ensure_ascii=False)
    copied = unquote(str(home)) != str(home)  # MLflow takes the %20 of a folder's name for a blank
    if copied:
        given += ", dst_path=tempfile.mkdtemp()"
    return [
        "import tempfile, mlflow" if copied else "import mlflow",
        f"mlflow.set_tracking_uri({json.dumps(store, ensure_ascii=False)})",
        f'mlflow.pyfunc.load_model({given}).predict(["A fine film."])',
    ]
