"""What ``mtl study compare`` prints for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import get_task

from ..terminal import words
from ..terminal.console import console
from ..terminal.leaderboard import SHORT_TITLES, TASK_TITLES
from ..terminal.tables import Column, fits, fitted, lay_out
from ..trials.leaderboard import METRIC_TITLES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from minbert import Task

_WHOLE = "In brackets: the 95 % interval, by bootstrap over the dev examples."
_HALF = "±: half the width of the 95 % interval, by bootstrap over the dev examples."
_PAIRED = "Paired differences, minus trial {}; significant: the 95 % interval excludes 0."
Write = Callable[[Mapping[str, float] | None, str], str]
"""Writes a value with its interval; the string is the format's sign."""


def print_comparison(payload: Mapping[str, Any]) -> None:
    """Print how trials differ: configuration, scores, and of two trials the examples."""
    screen = console()
    trials = payload["trials"]
    if not trials:
        screen.print(_unstyled(f"{payload['study']}: nothing to compare yet, {payload['reason']}"))
        return
    first, *others = (f"trial {trial['number']}" for trial in trials)
    screen.print(_unstyled(f"{payload['study']}: {', '.join(others)} against {first}"))
    if payload["reason"]:
        screen.print(_unstyled(f"{first} is {payload['reason']}"))
    screen.print()
    screen.print(_config_table(payload["config"], trials))
    screen.print()
    _print_scores(screen, trials, payload["differences"])
    for name, found in (payload["disagreements"] or {}).items():
        _print_disagreement(screen, name, found, (first, others[0]))


def _unstyled(value: object) -> Any:
    """Return a text without markup and without characters that steer a terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else " " for c in str(value)))


def _names(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"trial {trial['number']}" for trial in trials]


def _config_table(config: Mapping[str, list], trials: Sequence[Mapping[str, Any]]) -> Table:
    table = words.plain_table("configuration", *_names(trials), overflow="fold")
    for key, values in config.items():
        table.add_row(key, *map(_configured, values))
    if not config:
        table.add_row("no key differs")
    return table


def _configured(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return _unstyled("-")
    return _unstyled(",".join(value) if isinstance(value, list) else value)


# ---- scores ------------------------------------------------------------------------------------


def _print_scores(screen: Console, trials: Sequence[Mapping], differences: Sequence) -> None:
    """Print the scores with whole intervals where there is room, else with half widths."""
    columns = _metric_columns if len(trials) == 2 else _trial_columns
    table, how = lay_out(columns(trials, differences, _whole).values()), _WHOLE
    if not fits(screen, table):
        shorter = _shorter(trials) if len(trials) > 2 else ()
        table, how = fitted(screen, columns(trials, differences, _half), *shorter), _HALF
    screen.print(table)
    for line in (how, _PAIRED.format(trials[0]["number"])):
        screen.print(line)


def _metric_columns(
    trials: Sequence[Mapping], differences: Sequence[Mapping], write: Write
) -> dict[str, Column]:
    """Two trials: a row a metric."""
    (difference,) = differences
    costs = [("trainable", "trainable_parameters", ","), ("minutes", "minutes", ".1f")]
    columns = {
        "metric": Column("metric", [*METRIC_TITLES.values(), *(title for title, *_ in costs)])
    }
    for name, trial in zip(_names(trials), trials, strict=True):
        values = [write(trial["estimates"].get(metric), "") for metric in METRIC_TITLES]
        known = [(trial[key], form) for _, key, form in costs]
        values += ["-" if value is None else format(value, form) for value, form in known]
        columns[name] = Column(name, values)
    gaps = [difference[metric] for metric in METRIC_TITLES]
    columns["difference"] = Column("difference", [*(write(gap, "+") for gap in gaps), "", ""])
    columns["verdict"] = Column("", [*map(_verdict, gaps), "", ""])
    return columns


def _trial_columns(
    trials: Sequence[Mapping], differences: Sequence[Mapping], write: Write
) -> dict[str, Column]:
    """Several trials: a row each."""
    scores = [write(trial["estimates"].get("score"), "") for trial in trials]
    gaps = [found["score"] for found in differences]
    return {
        "trial": Column("trial>", [str(trial["number"]) for trial in trials]),
        "setting": Column("setting", [_unstyled(trial["setting"]) for trial in trials], folds=True),
        "score": Column("score", scores),
        "difference": Column("difference", ["", *(write(gap, "+") for gap in gaps)]),
        "verdict": Column("", ["", *map(_verdict, gaps)]),
        **_task_columns(trials, TASK_TITLES),
    }


def _task_columns(trials: Sequence[Mapping], titles: Mapping[str, str]) -> dict[str, Column]:
    return {
        name: Column(title, [words.score(trial[name]) for trial in trials])
        for name, title in titles.items()
    }


def _shorter(trials: Sequence[Mapping]) -> list[Mapping[str, Column | None]]:
    """What several trials' table does without on a narrow screen, the least first."""
    bare = Column("score", [words.score(trial["score"]) for trial in trials])
    return [
        _task_columns(trials, SHORT_TITLES),
        {"score": bare},
        dict.fromkeys(TASK_TITLES),
    ]


def _whole(given: Mapping[str, float] | None, sign: str) -> str:
    if given is None:
        return "-"
    value, low, high = (format(given[key], f"{sign}.3f") for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _half(given: Mapping[str, float] | None, sign: str) -> str:
    if given is None:
        return "-"
    return f"{given['value']:{sign}.3f} ± {(given['high'] - given['low']) / 2:.3f}"


def _verdict(given: Mapping[str, Any]) -> str:
    return "significant" if given["stands"] else "may be chance"


# ---- examples ----------------------------------------------------------------------------------


def _print_disagreement(
    screen: Any, name: str, found: Mapping[str, Any], trials: tuple[str, str]
) -> None:
    from rich.text import Text

    task = get_task(name)
    verb = "alone right" if task.classes else "nearer"
    said = (
        f": {trials[1]} is {verb} on {found['other_right']:,} examples, "
        f"{trials[0]} on {found['reference_right']:,}"
    )
    screen.print("\n", Text(task.title, style="bold"), said, sep="")
    if not found["examples"]:
        return
    table = words.plain_table("label", *trials, "text", overflow="fold")
    for example in found["examples"]:
        values = (_answer(example[key], task) for key in ("label", "reference", "other"))
        table.add_row(*values, _unstyled(" | ".join(example["texts"])))
    screen.print(table)


def _answer(value: float, task: Task) -> str:
    return task.classes[int(value)] if task.classes else f"{value:.2f}"
