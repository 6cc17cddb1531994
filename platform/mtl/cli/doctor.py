"""``mtl doctor``: what is wrong here, and what to type."""

import re
from typing import TYPE_CHECKING

import click

from .common import config_from_sets, json_option, print_json, reserved_stdout, set_option
from .exits import DONE, FAILED
from .ui import ui

if TYPE_CHECKING:
    from ..doctor.checks import Check

_STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


@click.command()
@set_option
@json_option
def doctor(sets: tuple[str, ...], as_json: bool) -> int:
    """Look at all that may be wrong here, and say how to mend it.

    Packages, home, databases, servers, machine, backbone, data and studies: a line each, ok, note
    or bad. Nothing is made or changed. --set backbone=... and data.path=... say which backbone
    and data to look at, else the demo's. The exit code is 1 if anything is bad.
    """
    from ..terminal.console import busy

    config = config_from_sets(sets)
    with reserved_stdout(as_json), busy("Looking"):
        from ..doctor.diagnose import diagnose

        checks = diagnose(config, _ports())
    good = not any(check.state == "bad" for check in checks)
    if as_json:
        print_json({"checks": [check._asdict() for check in checks], "ok": good})
    else:
        _print(checks)
    return DONE if good else FAILED


def _ports() -> list[tuple[str, int]]:
    """The ports that ``mtl ui`` takes by itself, with their options; MLflow's first."""
    ports = [p for p in ui.params if re.search(r"port$", p.opts[0])]
    return [(p.opts[0], p.default) for p in ports if isinstance(p.default, int)]


def _print(checks: "list[Check]") -> None:
    from rich.text import Text

    from ..terminal.console import console

    screen = console()
    width = max(len(check.name) for check in checks)
    for check in checks:
        line = Text(f"{check.state:<4}", _STYLES[check.state])
        line.append(f"  {check.name:<{width}}  ", "bold")
        line.append(check.found, "default")
        if check.mend:
            line.append(f"  → {check.mend}", "cyan")
        screen.print(line, soft_wrap=True)
    counts = [sum(check.state == state for check in checks) for state in ("bad", "note")]
    screen.print(_verdict(*counts))


def _verdict(bad: int, notes: int) -> str:
    if bad:
        return f"{bad} bad: put that right first"
    return "all good" + (f"; {notes} to know" if notes else "")
