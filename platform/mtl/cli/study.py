"""``mtl study``: run studies and look at what was recorded."""

import sys
from pathlib import Path

import click

from .common import (
    OrderedGroup,
    cohort_option,
    jobs_option,
    json_option,
    load,
    print_json,
    profile_option,
    replicates_option,
    reserved_stdout,
    set_option,
    trials_option,
)
from .exits import DONE, FAILED
from .promote import promote
from .report import compare, report
from .run import run
from .sync import sync


@click.group(cls=OrderedGroup)
def study() -> None:
    """Run studies and look at what was recorded."""


@study.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List shipped studies and recorded ones."""
    from ..storage.home import Home
    from ..study.load import list_studies
    from .payloads import list_payload
    from .tables import print_studies

    shipped = [
        {"name": info.name, "description": info.description, "profiles": list(info.profiles)}
        for info in list_studies()
    ]
    recorded = list_payload(Home.resolve(create=False))
    if as_json:
        print_json({"studies": shipped, "recorded": recorded})
    else:
        print_studies(shipped, recorded)


@study.command()
@click.argument("name", metavar="NAME|FILE")
@profile_option
@trials_option
@set_option
@json_option
def show(
    name: str, profile: str | None, trials: int | None, sets: tuple[str, ...], as_json: bool
) -> None:
    """Show a study file with profile, --set and defaults applied."""
    from .tables import spec_payload, spec_toml

    spec = load(name, profile, trials, sets)
    if as_json:
        print_json(spec_payload(spec))
    else:
        click.echo(spec_toml(spec))


@study.command()
@click.argument("name", metavar="NAME|FILE")
@profile_option
@trials_option
@replicates_option
@jobs_option
@cohort_option
@set_option
@json_option
def plan(
    name: str,
    profile: str | None,
    trials: int | None,
    replicates: int | None,
    jobs: int | None,
    cohort: int | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what a study would do, and its time and memory."""
    from ..dispatch.plan import plan_study
    from ..storage.home import Home
    from ..terminal.console import busy
    from .tables import print_plan

    spec = load(name, profile, trials, sets, replicates)
    with reserved_stdout(as_json), busy("Measuring a few steps"):
        planned = plan_study(spec, Home.resolve_to_look(), jobs=jobs, cohort=cohort)
    if as_json:
        print_json(planned)
    else:
        print_plan(planned, spec)


study.add_command(run)


@study.command()
@click.argument("name")
@json_option
def status(name: str, as_json: bool) -> int:
    """Show how far a recorded study is."""
    from .payloads import open_study, status_payload
    from .tables import print_status

    payload = status_payload(open_study(name))
    if as_json:
        print_json(payload)
    else:
        print_status(payload)
    return DONE if payload["trials"] else FAILED


@study.command()
@click.argument("name")
@json_option
def best(name: str, as_json: bool) -> int:
    """Show the best trial: parameters, scores, run."""
    from .payloads import best_payload, open_study
    from .tables import print_best

    payload = best_payload(open_study(name))
    if as_json:
        print_json(payload)
    else:
        print_best(payload)
    return DONE if payload["best"] else FAILED


@study.command()
@click.argument("name")
@click.option("-o", "--out", metavar="FILE.csv", help="Write here, not on standard output.")
@json_option
def export(name: str, out: str | None, as_json: bool) -> int:
    """Write the trials as CSV, best first."""
    from ..artifacts.csv_tables import export_csv
    from ..trials.leaderboard import leaderboard
    from .payloads import open_study

    recorded = open_study(name)
    rows = leaderboard(recorded)
    if out:
        export_csv(recorded, Path(out))
    elif not as_json:
        export_csv(recorded, sys.stdout)
    if as_json:
        print_json({"study": recorded.study_name, "file": out, "trials": rows})
    elif out:
        click.echo(f"{len(rows)} trials in {out}")
    return DONE if rows else FAILED


study.add_command(compare)
study.add_command(report)
study.add_command(promote)
study.add_command(sync)
