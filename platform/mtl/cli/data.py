"""``mtl data``: data files, looked at before anything is trained on them, and fetched."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from .common import json_option, print_json

if TYPE_CHECKING:
    from minbert.data.files import FileReport

_NAMED = 10  # unusable rows that are printed


@click.group()
def data() -> None:
    """Check data files, or fetch the paper's."""


@data.command()
@click.argument("path", default="demo", metavar="[DIR]")
@json_option
def check(path: str, as_json: bool) -> None:
    """Read data files and name bad rows.

    They are read as a training reads them: a bad row is one that it cannot use. DIR holds the
    paper's tab-separated files; without it the embedded demo corpus is checked. Test files may be
    missing: only predictions need them.
    """
    from minbert import check_data

    from ..storage.home import Home

    reports = check_data(path, Home.resolve_to_look().cache)
    if as_json:
        print_json({"data": path, "files": [asdict(report) for report in reports]})
        return
    _print(path, reports)


@data.command()
@click.argument("folder", default="data", metavar="[DIR]")
@click.option("--revision", help="Branch, tag or commit; default: the default branch.")
@click.option(
    "--repository",
    metavar="OWNER/REPO",
    help="Another repository on GitHub with the same files in its folder data.",
)
@json_option
def pull(folder: str, revision: str | None, repository: str | None, as_json: bool) -> None:
    """Fetch the paper's data files into DIR (default: data) and check them.

    They come from the course's public repository on GitHub, each compared with its git hash. DIR
    is new or empty, or an earlier pull's, which is replaced when the new one is whole. The commit
    and each file's sha256 are kept in its pulled.json.
    """
    from minbert import pull_data
    from minbert.data.pull import SOURCE

    from ..terminal.console import console

    with console(stderr=True).status("asking GitHub") as status:  # on a terminal only
        pulled = pull_data(
            folder,
            repository or SOURCE,
            revision,
            api=os.environ.get("MTL_GITHUB_API"),
            raw=os.environ.get("MTL_GITHUB_RAW"),
            progress=lambda name, size: status.update(f"fetching {name}, {size / 1e6:.1f} MB"),
        )
    if as_json:
        print_json({"data": folder} | asdict(pulled) | {"folder": str(pulled.folder.absolute())})
        return
    _print(folder, pulled.files)
    if pulled.missing:
        click.echo(f"not in the source: {', '.join(pulled.missing)}; no training needs them")
    click.echo(f"revision {pulled.revision} of {pulled.repository}")
    setting = shlex.quote(f"data.path={folder}")
    click.echo("\nWhat next:")
    click.echo("  mtl backbone pull bert-base-uncased\n      the paper's encoder")
    click.echo(f"  mtl study run lora_sweep --set {setting} --set backbone=bert-base-uncased")
    click.echo("      a study on these files; --profile paper has the paper's budget")


def _print(path: str, reports: Sequence["FileReport"]) -> None:
    from ..terminal.console import console
    from .tables import data_table

    screen = console()
    screen.print(data_table(reports))
    skipped = [row for report in reports for row in report.skipped]
    for row in skipped[:_NAMED]:
        screen.print(f"skipped: {row}", markup=False, soft_wrap=True)
    if len(skipped) > _NAMED:
        screen.print(f"... and {len(skipped) - _NAMED} more; --json names every one")
    left = "1 row is left out" if len(skipped) == 1 else f"{len(skipped)} rows are left out"
    screen.print(f"{path}: good" + (f"; {left}" if skipped else ""))
