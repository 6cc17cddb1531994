"""``mtl ui``: the MLflow UI and the Optuna dashboard over what was recorded."""

import sys

import click

from ..tracking.store import UI_PORT

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
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 is every one of this machine. Any but loopback needs a "
    "password.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    metavar="NAME",
    multiple=True,
    help="A further name under which others ask, such as a proxy's; needs a password.",
)
def ui(
    port: int, dashboard_port: int, allow_edit: bool, host: str, allowed_hosts: tuple[str, ...]
) -> int | None:
    """Start the MLflow UI and the Optuna dashboard on this machine. Ctrl-C stops both.

    The password is read from MTL_UI_PASSWORD, else asked for at the terminal; the name that goes
    with it is mtl, or MTL_UI_USER.
    """
    from ..storage.home import Home
    from ..ui.serve import serve

    return serve(
        Home.resolve_to_look(),
        port=port,
        dashboard_port=dashboard_port,
        allow_edit=allow_edit,
        host=host,
        allowed_hosts=allowed_hosts,
        ask=_ask if sys.stdin.isatty() else None,
    )


def _ask() -> str:
    prompt = "A password for both pages"
    return click.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
