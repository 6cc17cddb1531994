"""``mtl gc``: remove what nobody needs any more."""

from typing import TYPE_CHECKING, Any

import click

from ..common.text import count
from .common import json_option, print_json, reserved_stdout
from .exits import DONE, FAILED

if TYPE_CHECKING:
    from ..housekeeping.removal import Removal


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would be removed; change nothing.")
@json_option
def gc(dry_run: bool, as_json: bool) -> int:
    """Remove what nobody needs any more from the home.

    Checkpoints of trials and trainings that have ended, tokenised data of files that are gone,
    artifacts of deleted runs, pictures of deleted trials, old tracebacks. Never anything of a
    study that runs, nor what an interrupted training goes on from.
    """
    from ..housekeeping.tidy import tidy
    from ..storage.home import Home

    with reserved_stdout(as_json):
        removal = tidy(Home.resolve(create=False), remove=not dry_run)
    if as_json:
        print_json(_payload(removal))
    else:
        _print(removal)
    return FAILED if removal.failed else DONE


def _payload(removal: "Removal") -> dict[str, Any]:
    found = [{**vars(row), "path": str(row.path)} for row in removal.found]
    kept, failed = (
        [{"path": str(row.path), "why": row.why} for row in rows]
        for rows in (removal.kept, removal.failed)
    )
    total = sum(row.bytes for row in removal.found)
    return {
        "home": str(removal.home),
        "dry_run": not removal.remove,
        "bytes": total,
        "found": found,
        "kept": kept,
        "failed": failed,
    }


def _print(removal: "Removal") -> None:
    from ..terminal import words
    from ..terminal.console import console

    screen = console()
    if removal.found:
        table = words.plain_table("what", "where", "size>", overflow="fold")
        for row in removal.found:
            table.add_row(row.what, _where(removal, row.path), words.size(row.bytes))
        screen.print(table)
    for kept in (*removal.kept, *removal.failed):
        line = f"left alone: {_where(removal, kept.path)}: {kept.why}"
        screen.print(line, soft_wrap=True)
    total = words.size(sum(row.bytes for row in removal.found))
    number = count(len(removal.found), "thing")
    if not removal.found:
        said = f"nothing to remove in {removal.home}"
    elif removal.remove:
        said = f"removed {number}, {total}"
    else:
        said = f"{number}, {total}, would be removed; without --dry-run they are"
    screen.print(said, soft_wrap=True)


def _where(removal: "Removal", path: Any) -> str:
    return str(path.relative_to(removal.home) if path.is_relative_to(removal.home) else path)
