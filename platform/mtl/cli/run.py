"""``mtl study run``: run a study or go on with it, and say what to type next."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from minbert.errors import InputError

from ..common.text import count
from .common import (
    again,
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
from .exits import DONE, FAILED, INTERRUPTED

if TYPE_CHECKING:
    from ..dispatch.view import StudyResult
    from ..study.spec import StudySpec

_GO_ON = "Interrupted. To go on where it stopped"
_as_option = click.option(
    "--as", "study_name", metavar="STUDY", help="Record it under this name, not the file's."
)


@click.command()
@click.argument("name", metavar="NAME|FILE")
@profile_option
@trials_option
@replicates_option
@jobs_option
@cohort_option
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
    help="Start trials in rounds, as many as run at the same time, so that the same seed gives the "
    "same trials.",
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
    cohort: int | None,
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
        from ..storage.lease import LeaseLostError

        spec = load(name, profile, trials, sets, replicates)
        result = _run(
            spec,
            as_json,
            jobs=jobs,
            cohort=cohort,
            executor=executor,
            cpus=cpus,
            gpus=gpus,
            study_name=study_name,
            synchronous=synchronous,
            command=again(),
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
    from ..terminal.choose import choose_view

    with reserved_stdout(as_json), choose_view(stderr=as_json) as view:
        from ..dispatch.run import run_study
        from ..storage.home import Home

        return run_study(spec, Home.resolve(), view=view, **options)


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
            *_more(spec),
        ):
            click.echo(f"  {typed}\n      {meaning}")


def _more(spec: "StudySpec") -> Iterator[tuple[str, str]]:
    """Yield the command that continues a study: more trials, or more seeds where all is tried and
    the seed is not itself among what is tried."""
    if spec.open_ended:
        more = "eight more trials" if spec.replicates == 1 else "eight more settings"
        yield again(trials=spec.originals_total + 8), more
    elif spec.untried:
        what = "cell" if spec.sampler == "grid" else "point"
        total = spec.originals_total + spec.untried
        yield again(trials=total), f"the other {count(spec.untried, what)}, too"
    elif spec.replicable:
        yield again(replicates=spec.replicates + 2), "the same with two more seeds each"
