"""``mtl study``: run studies and look at what was recorded."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minbert.errors import InputError

from .common import (
    OrderedGroup,
    again,
    json_option,
    print_json,
    profile_option,
    reserved_stdout,
    set_option,
    trials_option,
)
from .exits import DONE, FAILED, INTERRUPTED
from .promote import promote
from .report import compare, report
from .sync import sync

if TYPE_CHECKING:
    from mtl.dispatch import StudyResult
    from mtl.spec import StudySpec

_GO_ON = "Interrupted. To go on where it stopped"
_jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1), help="Worker processes; by default as cores allow."
)
_replicates_option = click.option(
    "--replicates",
    type=click.IntRange(min=1, max=1000),
    help="Train every trial with this many seeds; tables show mean and deviation.",
)
_as_option = click.option(
    "--as", "study_name", metavar="STUDY", help="Record it under this name, not the file's."
)


@click.group(cls=OrderedGroup)
def study() -> None:
    """Run studies and look at what was recorded."""


@study.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List shipped studies and recorded ones."""
    from mtl.spec import list_studies
    from mtl.stores import Home

    from .recorded import list_payload
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

    spec = _load(name, profile, trials, sets)
    if as_json:
        print_json(spec_payload(spec))
    else:
        click.echo(spec_toml(spec))


@study.command()
@click.argument("name", metavar="NAME|FILE")
@profile_option
@trials_option
@_replicates_option
@_jobs_option
@set_option
@json_option
def plan(
    name: str,
    profile: str | None,
    trials: int | None,
    replicates: int | None,
    jobs: int | None,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what a study would do, and its time and memory."""
    from mtl.plan import plan_study
    from mtl.stores import Home

    from .tables import print_plan

    spec = _load(name, profile, trials, sets, replicates)
    with reserved_stdout(as_json):
        planned = plan_study(spec, Home.resolve(), jobs=jobs)
    if as_json:
        print_json(planned)
    else:
        print_plan(planned, spec)


@study.command()
@click.argument("name", metavar="NAME|FILE")
@profile_option
@trials_option
@_replicates_option
@_jobs_option
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where trials run: worker processes of this machine, or a Ray cluster (at RAY_ADDRESS, "
    "or one that is started here).",
)
@click.option(
    "--cpus-per-trial",
    "cpus",
    type=click.FloatRange(min=0, min_open=True, max=4096),
    metavar="N",
    help="For Ray: processors of each trial.  [default: 1]",
)
@click.option(
    "--gpus-per-trial",
    "gpus",
    type=click.FloatRange(min=0, max=64),
    metavar="N",
    help="For Ray: GPUs of each trial, or a part of one.  [default: 1 where there are any]",
)
@click.option(
    "--synchronous",
    is_flag=True,
    help="Start trials in batches of --jobs, so that the same seed gives the same trials.",
)
@set_option
@_as_option
@json_option
def run(
    name: str,
    profile: str | None,
    trials: int | None,
    replicates: int | None,
    jobs: int | None,
    executor: str,
    cpus: float | None,
    gpus: float | None,
    synchronous: bool,
    sets: tuple[str, ...],
    study_name: str | None,
    as_json: bool,
) -> int:
    """Run a study, or go on with it.

    Every trial is a training in a worker process, recorded as a run in MLflow.

    The same command again goes on where the study stopped; a finished study is left as it is,
    and a larger --trials continues it.
    """
    try:
        from mtl.lease import LeaseLostError

        spec = _load(name, profile, trials, sets, replicates)
        result = _run(
            spec,
            as_json,
            jobs=jobs,
            executor=executor,
            cpus=cpus,
            gpus=gpus,
            study_name=study_name,
            synchronous=synchronous,
        )
    except KeyboardInterrupt:  # before any trial ran, or the second Ctrl-C
        click.echo(f"{_GO_ON}: {again()}", err=True)
        return INTERRUPTED
    except LeaseLostError as error:
        raise InputError(str(error)) from None
    if as_json:
        print_json(vars(result))
    _say_next(result, spec, quiet=as_json)
    return INTERRUPTED if result.interrupted else FAILED if result.failed else DONE


def _run(spec: "StudySpec", as_json: bool, **options: Any) -> "StudyResult":
    from mtl.dispatch import run_study
    from mtl.stores import Home
    from mtl.view import choose_view

    with reserved_stdout(as_json), choose_view(stderr=as_json) as view:
        return run_study(spec, Home.resolve(), view=view, **options)


def _load(
    name: str,
    profile: str | None,
    trials: int | None,
    sets: tuple[str, ...],
    replicates: int | None = None,
) -> "StudySpec":
    from mtl.spec import load_study, parse_sets

    return load_study(
        name,
        profile=profile,
        overrides=parse_sets(sets),
        trials=trials,
        replicates=replicates,
    )


def _say_next(result: "StudyResult", spec: "StudySpec", quiet: bool) -> None:
    """Say what to type next."""
    if result.interrupted:
        click.echo(f"{_GO_ON}: {again()}", err=True)
    elif not quiet:
        name = shlex.quote(result.name)
        click.echo("\nWhat next:")
        for typed, meaning in (
            ("mtl ui", "every trial in MLflow and in the Optuna dashboard"),
            (f"mtl study report {name}", "one page to read and to pass on"),
            (f"mtl study best {name}", "the best trial, and how to predict with it"),
            _more(spec),
        ):
            click.echo(f"  {typed}\n      {meaning}")


def _more(spec: "StudySpec") -> tuple[str, str]:
    """Return the command that continues a study: more trials, or more seeds where all is tried."""
    if spec.open_ended:
        return again(trials=spec.settings_total + 8), "eight more trials"
    return again(replicates=spec.replicates + 2), "the same with two more seeds each"


@study.command()
@click.argument("name")
@json_option
def status(name: str, as_json: bool) -> int:
    """Show how far a recorded study is."""
    from .recorded import open_study, status_payload
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
    from .recorded import best_payload, open_study
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
    from mtl.report import export_csv, leaderboard

    from .recorded import open_study

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
