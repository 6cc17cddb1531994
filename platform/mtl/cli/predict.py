"""``mtl predict``: from a run's model to the paper's prediction files."""

from pathlib import Path

import click

from .common import json_option, print_json, reserved_stdout


@click.command()
@click.argument("run", metavar="RUN")
@click.option(
    "--data",
    "data_dir",
    metavar="DIR",
    required=True,
    help="Folder with the data files, or demo for the embedded corpus.",
)
@click.option(
    "-o", "--out", "out_dir", metavar="DIR", required=True, help="Folder for the six files."
)
@json_option
def predict(run: str, data_dir: str, out_dir: str, as_json: bool) -> None:
    """Write the paper's prediction files for dev and test.

    RUN is the id of a run, or a folder that holds a run's model.
    """
    from minbert import predict_files

    from ..storage.home import Home
    from ..terminal.console import busy
    from ..tracking.run_models import model_folder

    home = Home.resolve(create=False)
    with reserved_stdout(as_json), busy("Predicting"):
        files = predict_files(model_folder(run, home), data_dir, Path(out_dir), home.cache)
    if as_json:
        print_json({"run": run, "files": [str(file) for file in files]})
        return
    for file in files:
        click.echo(file)
