"""``mtl data``: look at data files before anything is trained on them."""

from dataclasses import asdict

import click

from .common import json_option, print_json

_NAMED = 10  # unusable rows that are printed


@click.group()
def data() -> None:
    """Check data files."""


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
    from mtl.stores import Home
    from mtl.view import console

    from .tables import data_table

    reports = check_data(path, Home.resolve().cache)
    if as_json:
        print_json({"data": path, "files": [asdict(report) for report in reports]})
        return
    screen = console()
    screen.print(data_table(reports))
    skipped = [row for report in reports for row in report.skipped]
    for row in skipped[:_NAMED]:
        screen.print(f"skipped: {row}", markup=False, soft_wrap=True)
    if len(skipped) > _NAMED:
        screen.print(f"... and {len(skipped) - _NAMED} more; --json names every one")
    screen.print(f"{path}: good" + (f"; {len(skipped)} rows are left out" if skipped else ""))
