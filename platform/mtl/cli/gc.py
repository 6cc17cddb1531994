"""``mtl gc``: remove what nobody needs any more."""

from typing import TYPE_CHECKING, Any

import click

from ..common.text import count
from .common import json_option, print_json, reserved_stdout
from .exits import DONE, FAILED

if TYPE_CHECKING:
    from mtl.housekeeping import Yard


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would be removed; change nothing.")
@json_option
def gc(dry_run: bool, as_json: bool) -> int:
    """Remove what nobody needs any more from the home.

    Checkpoints of trials and trainings that have ended, tokenised data of files that are gone,
    artifacts of deleted runs, pictures of deleted trials, old tracebacks. Never anything of a
    study that runs, nor what an interrupted training goes on from.
    """
    from mtl.housekeeping import tidy
    from mtl.storage.home import Home

    with reserved_stdout(as_json):
        yard = tidy(Home.resolve(create=False), remove=not dry_run)
    if as_json:
        print_json(_payload(yard))
    else:
        _print(yard)
    return FAILED if yard.failed else DONE


def _payload(yard: "Yard") -> dict[str, Any]:
    found = [{**vars(row), "path": str(row.path)} for row in yard.found]
    kept, failed = (
        [{"path": str(row.path), "why": row.why} for row in rows]
        for rows in (yard.kept, yard.failed)
    )
    total = sum(row.bytes for row in yard.found)
    return {
        "home": str(yard.home),
        "dry_run": not yard.remove,
        "bytes": total,
        "found": found,
        "kept": kept,
        "failed": failed,
    }


def _print(yard: "Yard") -> None:
    from mtl.view import console, words

    screen = console()
    if yard.found:
        table = words.plain_table("what", "where", "size>", overflow="fold")
        for row in yard.found:
            table.add_row(row.what, _where(yard, row.path), words.size(row.bytes))
        screen.print(table)
    for row in (*yard.kept, *yard.failed):
        line = f"left alone: {_where(yard, row.path)}: {row.why}"
        screen.print(line, soft_wrap=True)
    total = words.size(sum(row.bytes for row in yard.found))
    number = count(len(yard.found), "thing")
    if not yard.found:
        said = f"nothing to remove in {yard.home}"
    elif yard.remove:
        said = f"removed {number}, {total}"
    else:
        said = f"{number}, {total}, would be removed; without --dry-run they are"
    screen.print(said, soft_wrap=True)


def _where(yard: "Yard", path: Any) -> str:
    return str(path.relative_to(yard.home) if path.is_relative_to(yard.home) else path)
