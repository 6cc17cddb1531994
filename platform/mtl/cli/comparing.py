"""What ``mtl study compare`` prints for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minbert.tasks import BY_NAME
from mtl.view import console, words

if TYPE_CHECKING:
    from rich.table import Table

    from minbert import Task

_METRICS = {
    "score": "score",
    "sst_accuracy": "SST accuracy",
    "para_accuracy": "PARA accuracy",
    "sts_pearson": "STS Pearson",
}


def print_comparison(payload: Mapping[str, Any]) -> None:
    """Print how trials differ: configuration, scores, and of two trials the examples."""
    screen = console()
    trials = payload["trials"]
    if not trials:
        screen.print(_plain(f"{payload['study']}: nothing to compare yet, {payload['reason']}"))
        return
    first, *others = (f"trial {trial['number']}" for trial in trials)
    screen.print(_plain(f"{payload['study']}: {', '.join(others)} against {first}"))
    if payload["reason"]:
        screen.print(_plain(f"{first} is {payload['reason']}"))
    screen.print()
    screen.print(_config_table(payload["config"], trials))
    screen.print()
    if len(trials) == 2:
        screen.print(_metric_table(trials, payload["differences"][0]))
    else:
        screen.print(_trial_table(trials, payload["differences"]))
    screen.print("In brackets 95 % intervals by bootstrap over the dev examples; differences are")
    screen.print(f"paired, minus {first}; one stands if its interval leaves 0 out.")
    for name, found in (payload["disagreements"] or {}).items():
        _print_disagreement(screen, name, found, (first, others[0]))


def _plain(value: object) -> Any:
    """Return a text without markup and without characters that steer a terminal."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else " " for c in str(value)))


def _names(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"trial {trial['number']}" for trial in trials]


def _config_table(config: Mapping[str, list], trials: Sequence[Mapping[str, Any]]) -> Table:
    table = words.plain_table("configuration", *_names(trials), overflow="fold")
    for key, values in config.items():
        table.add_row(key, *(_plain("-" if value is None else value) for value in values))
    if not config:
        table.add_row("no key differs")
    return table


def _metric_table(trials: Sequence[Mapping[str, Any]], difference: Mapping[str, Any]) -> Table:
    table = words.plain_table("metric", *_names(trials), "difference", "", overflow="fold")
    for name, title in _METRICS.items():
        values = (_value(trial["estimates"].get(name)) for trial in trials)
        table.add_row(title, *values, _signed(difference[name]), _stands(difference[name]))
    for key, title, write in (
        ("trainable_parameters", "trainable", lambda n: f"{n:,}"),
        ("minutes", "minutes", lambda n: f"{n:.1f}"),
    ):
        given = [trial[key] for trial in trials]
        table.add_row(title, *("-" if value is None else write(value) for value in given))
    return table


def _trial_table(trials: Sequence[Mapping[str, Any]], differences: Sequence) -> Table:
    columns = ("score", "difference", "", "SST acc>", "PARA acc>", "STS r>")
    table = words.plain_table("trial>", "setting", *columns, overflow="fold")
    for trial, found in zip(trials, [None, *differences], strict=True):
        gap = ("", "") if found is None else (_signed(found["score"]), _stands(found["score"]))
        by_task = (words.score(trial[name]) for name in list(_METRICS)[1:])
        score = _value(trial["estimates"].get("score"))
        table.add_row(str(trial["number"]), _plain(trial["setting"]), score, *gap, *by_task)
    return table


def _value(given: Mapping[str, float] | None) -> str:
    if given is None:
        return "-"
    return f"{given['value']:.3f} ({given['low']:.3f} to {given['high']:.3f})"


def _signed(given: Mapping[str, float]) -> str:
    return f"{given['value']:+.3f} ({given['low']:+.3f} to {given['high']:+.3f})"


def _stands(given: Mapping[str, Any]) -> str:
    return "stands" if given["stands"] else "may be chance"


def _print_disagreement(
    screen: Any, name: str, found: Mapping[str, Any], trials: tuple[str, str]
) -> None:
    from rich.text import Text

    task = BY_NAME[name]
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
        table.add_row(*values, _plain(" | ".join(example["texts"])))
    screen.print(table)


def _answer(value: float, task: Task) -> str:
    return task.classes[int(value)] if task.classes else f"{value:.2f}"
