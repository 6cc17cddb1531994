"""What several commands share: their options, JSON on standard output, tables."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from minbert.errors import InputError

if TYPE_CHECKING:
    from minbert import Config

    from ..study.spec import StudySpec


_MOST_PLACES = 256


class OrderedGroup(click.Group):
    """Lists its commands in the order in which they were added: the first things first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)
set_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a configuration key; the value is a TOML literal, a bare word is a string.",
)
profile_option = click.option("--profile", metavar="NAME", help="Use this profile of the study.")
trials_option = click.option(
    "--trials", type=click.IntRange(min=1), help="Trials of the study in all, earlier ones counted."
)
jobs_option = click.option(
    "--jobs", type=click.IntRange(min=1), help="Worker processes; by default as cores allow."
)


class _Cohort(click.ParamType):
    """`auto` (None: as many as suit), or a number of trials."""

    name = "cohort"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value == "auto":
            return None
        if str(value).isascii() and str(value).isdecimal() and 1 <= int(value) <= _MOST_PLACES:
            return int(value)
        raise click.BadParameter(f"{value!r} is not auto or a number from 1 to {_MOST_PLACES}")


cohort_option = click.option(
    "--cohort",
    type=_Cohort(),
    default="1",
    show_default=True,
    metavar="auto|N",
    help="Trials at the same time in each worker (docs/cohorts.md); auto is 1 as yet.",
)
replicates_option = click.option(
    "--replicates",
    type=click.IntRange(min=1, max=1000),
    help="Train every trial with this many seeds; tables show mean and deviation.",
)


def config_from_sets(sets: tuple[str, ...]) -> "Config":
    """Make the configuration of one training from ``--set`` options.

    Raises:
        InputError: a key that does not exist or a value that does not fit.
    """
    from minbert import Config

    from ..study.overrides import parse_sets

    return Config.from_keys(parse_sets(sets))


def print_json(payload: Mapping[str, Any]) -> None:
    """Print one JSON object; what JSON cannot say (NaN, infinities) becomes null."""
    text = json.dumps(_json_value(payload), ensure_ascii=False, allow_nan=False)
    click.echo(text)


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return _json_value(value.item()) if hasattr(value, "item") else str(value)


@contextmanager
def reserved_stdout(reserve: bool) -> Iterator[None]:
    """Keep standard output for the JSON object: what libraries and workers print goes to stderr."""
    if not reserve:
        yield
        return
    try:
        out = sys.stdout.fileno()
    except (OSError, AttributeError):  # not a file of the system: a test that captures
        with redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(out)
    os.dup2(sys.stderr.fileno(), out)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, out)
        os.close(kept)


def again(**options: int) -> str:
    """Return the command line that was typed, to be typed again; with other values of options:
    ``again(trials=24)``."""
    args = sys.argv[1:]
    for name, value in options.items():
        option = f"--{name}"
        places = [i for i, arg in enumerate(args) if arg == option]
        dropped = {i + step for i in places for step in (0, 1)}
        args = [a for i, a in enumerate(args) if i not in dropped]
        args = [a for a in args if not a.startswith(f"{option}=")] + [option, str(value)]
    return shlex.join(["mtl", *args])


def to_predict(run_id: str, data: str) -> str:
    """Return the command that predicts with a run's model, on the data that it was trained on."""
    return f"mtl predict {run_id} --data {shlex.quote(data)} -o predictions"


def load(
    name: str,
    profile: str | None,
    trials: int | None,
    sets: tuple[str, ...],
    replicates: int | None = None,
) -> "StudySpec":
    """Read a study with the options of a command.

    Raises:
        InputError: it cannot be read; if it was recorded from a file, by which command is said.
    """
    from ..study.file import NoSuchStudyError
    from ..study.load import load_study
    from ..study.overrides import parse_sets

    try:
        return load_study(
            name,
            profile=profile,
            overrides=parse_sets(sets),
            trials=trials,
            replicates=replicates,
        )
    except NoSuchStudyError:
        from .payloads import command_of

        if command := command_of(name):
            raise InputError(
                f"study {name!r} is recorded here, and was run from a file: {command}"
            ) from None
        raise
