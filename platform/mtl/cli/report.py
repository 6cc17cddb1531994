"""``mtl study compare`` and ``mtl study report``: what a recorded study found."""

from pathlib import Path

import click

from .common import json_option, print_json, reserved_stdout
from .exits import DONE, FAILED


@click.command()
@click.argument("name")
@click.argument("trials", metavar="[TRIAL]...", type=int, nargs=-1)
@json_option
def compare(name: str, trials: tuple[int, ...], as_json: bool) -> int:
    """Say how trials differ, and whether significantly.

    The first trial is what the others are compared with; without any it is the best trial against
    the baseline, which is trial 0.
    """
    from ..report.comparison import compare_trials
    from ..storage.home import Home
    from ..terminal.console import busy
    from .comparison import print_comparison
    from .payloads import open_study

    recorded = open_study(name)
    with reserved_stdout(as_json), busy("Reading what the trials predicted"):
        payload = compare_trials(recorded, trials, Home.resolve(create=False))
    if as_json:
        print_json(payload)
    else:
        print_comparison(payload)
    return DONE if payload["trials"] else FAILED


@click.command()
@click.argument("name")
@click.option("-o", "--out", metavar="FILE.html", help="Write here, not to NAME-report.html.")
@json_option
def report(name: str, out: str | None, as_json: bool) -> int:
    """Write one page about a study: to read, to mail, offline.

    It stands on what is recorded, also while the study runs; what is missing is said on it.
    """
    from ..report.page import report_name, write_report_page
    from ..storage.home import Home
    from ..terminal.console import busy
    from .payloads import open_study

    recorded = open_study(name)
    file = Path(out or report_name(recorded.study_name))
    with reserved_stdout(as_json), busy("Writing the page"):
        written = write_report_page(recorded, Home.resolve(create=False), file)
    if as_json:
        print_json(written)
    else:
        click.echo(f"{written['file']} ({written['bytes'] / 1e6:.1f} MB)")
        for line in written["missing"]:
            click.echo(f"missing: {line}")
    return DONE if written["trials"] else FAILED
