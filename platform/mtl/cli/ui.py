"""``mtl ui``: the MLflow UI and the Optuna dashboard over what was recorded."""

import click

from mtl.mlflow_store import UI_PORT

_port = click.IntRange(0, 65535)


@click.command()
@click.option(
    "--port", type=_port, default=UI_PORT, show_default=True, help="Port of the MLflow UI."
)
@click.option(
    "--dashboard-port",
    type=_port,
    default=8080,
    show_default=True,
    help="Port of the Optuna dashboard.",
)
@click.option("--allow-edit", is_flag=True, help="Let the dashboard change and delete studies.")
def ui(port: int, dashboard_port: int, allow_edit: bool) -> int | None:
    """Start the MLflow UI and the Optuna dashboard on this machine. Ctrl-C stops both."""
    from mtl.serve import serve
    from mtl.stores import Home

    return serve(Home.resolve(), port=port, dashboard_port=dashboard_port, allow_edit=allow_edit)
