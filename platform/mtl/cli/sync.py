"""``mtl study sync``: send what waits for MLflow."""

import click

from .common import json_option, print_json
from .exits import DONE, FAILED


@click.command()
@click.argument("name", required=False)
@json_option
def sync(name: str | None, as_json: bool) -> int:
    """Send what waits for MLflow: of one study, or of all studies and trainings.

    While MLflow is away, what is recorded waits in the home, and a running study sends it as soon
    as MLflow is back.
    """
    from ..storage.home import Home
    from ..tracking.sync import sync_runs

    result = sync_runs(Home.resolve(), name)
    if as_json:
        print_json(vars(result))
    else:
        click.echo(result.words)
    return FAILED if result.waiting else DONE
