"""The paper's tables beside what was recorded here: rows matched by what they compute."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from ..trials.leaderboard import grouped
from ..trials.states import COMPLETE

Row = Mapping[str, Any]

TABLES = range(1, 7)
PAPER_COLUMNS = {
    "sst": "sst_accuracy",
    "para": "para_accuracy",
    "sts": "sts_pearson",
    "score": "score",
}
"""The paper's columns, and our metrics."""

ROWS_READ = {
    "sst/train": 8544 + 1701,  # SST and CFIMDB
    "sst/dev": 1101,
    "para/train": 282_841,
    "para/dev": 40_430,
}
"""The paper's dataset sizes (appendix A), which does not name those of STS."""

BUDGET = (
    *("backbone", "train.batch_size", "train.lr", "train.warmup_steps", "train.grad_clip"),
    *("train.dropout", "train.weight_decay", "train.eval_every", "train.eval_limit"),
)
"""Keys that belong to how a method is trained, not to what it is."""


class Value(NamedTuple):
    """A metric with its 95 % interval; of several seeds ``deviation`` is theirs, else None."""

    value: float
    low: float | None
    high: float | None
    deviation: float | None = None

    def minus(self, other: float) -> Value:
        """Return the value moved down, its interval with it."""
        low, high = (None if end is None else end - other for end in (self.low, self.high))
        return Value(self.value - other, low, high, self.deviation)


@dataclass(frozen=True)
class Ours:
    """The trials that do what a row of the paper does.

    Attributes:
        numbers: of the trials, the seeds of one setting.
        settings: how many settings match; the best of them is shown.
        values: by the paper's columns.
        config: every key, of the first trial.
    """

    numbers: list[int]
    settings: int
    values: dict[str, Value]
    minutes: float | None
    trainable: int | None
    config: Mapping[str, Any]


@dataclass(frozen=True)
class PaperRow:
    """A row of a table: its printed figures, its configuration, and ours (None: not run)."""

    label: str
    printed: Mapping[str, Any]
    config: Mapping[str, Any]
    ours: Ours | None


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper with its rows in their order."""

    number: int
    title: str
    note: str
    rows: list[PaperRow]

    @property
    def matched(self) -> list[PaperRow]:
        return [row for row in self.rows if row.ours is not None]

    def differing_budget(self) -> dict[str, tuple[list[Any], list[Any]]]:
        """Return the keys of the budget in which ours differ: the paper's values, and ours."""
        found = {}
        for key in BUDGET:
            theirs = [row.config[key] for row in self.matched]
            ours = [row.ours.config.get(key) for row in self.matched if row.ours]
            if theirs != ours:
                found[key] = (_unique(theirs), _unique(ours))
        return found


def beside_paper(study: str, rows: Sequence[Row]) -> list[PaperTable]:
    """Return the tables of the paper that a study has rows of.

    Args:
        study: its name; the table that ``lora_sweep`` runs belongs to ``lora_sweep@3f2a1b`` too,
            even if no row of it was run.
        rows: its leaderboard.
    """
    complete = [
        (row, method(row["config"])) for row in rows if row["state"] == COMPLETE and _is_ours(row)
    ]
    own = study.partition("@")[0]
    tables = (_table(number, complete) for number in TABLES)
    return [table for table, name in tables if table.matched or name == own]


def _is_ours(row: Row) -> bool:
    return bool(row["config"]) and all(row[metric] is not None for metric in PAPER_COLUMNS.values())


def printed_errors() -> dict[str, Any]:
    """Return the paper's table 7: STS errors of its baseline and its final model."""
    return _printed(7)


def method(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a configuration computes: the keys of the method that have any effect."""
    keys = _whole(config)
    kept = {"train.mode": keys["train.mode"], "lora.rank": keys["lora.rank"]}
    if keys["lora.rank"]:
        kept["lora.alpha"] = keys["lora.alpha"]
    kept["pals.kind"] = keys["pals.kind"]
    if keys["pals.kind"] != "none":
        kept["pals.placement"] = keys["pals.placement"]
        kept["pals.tasks"] = sorted(keys["pals.tasks"])
    return kept | _smart(keys) | _schedule(keys)


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a configuration that was recorded before some key existed: it has its default."""
    return {**_defaults(), **config}


@cache
def _defaults() -> dict[str, Any]:
    from minbert import Config

    return Config().to_keys()


def _smart(keys: Mapping[str, Any]) -> dict[str, Any]:
    names = ["smart.lambda", "smart.proximal"]
    if keys["smart.lambda"]:
        names += ["smart.alpha", "smart.mode", "smart.norm"]
        if keys["smart.mode"] == "adversarial":
            names += ["smart.steps", "smart.step_size"]
    if keys["smart.proximal"]:
        names.append("smart.momentum")
    return {name: keys[name] for name in names}


def _schedule(keys: Mapping[str, Any]) -> dict[str, Any]:
    kept = {"schedule.tasks": sorted(keys["schedule.tasks"])}
    if len(kept["schedule.tasks"]) == 1:
        return kept
    kept |= {name: keys[name] for name in ("schedule.policy", "schedule.per")}
    if keys["schedule.policy"] == "annealed":
        kept["schedule.anneal"] = keys["schedule.anneal"]
    return kept


@cache
def _printed(number: int) -> dict[str, Any]:
    path = Path(__file__).parent / "paper" / f"table{number}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _table(number: int, complete: Sequence[tuple[Row, Row]]) -> tuple[PaperTable, str]:
    """Return a table with ours beside it, and the name of the study that runs it.

    Args:
        complete: trials, each with its method.
    """
    from ..study.load import load_study

    printed = _printed(number)
    spec = load_study(printed["study"], profile="paper")
    configs = [spec.config_of(row["keys"]).to_keys() for row in printed["rows"]]
    found = _matches(printed["rows"], configs, complete)
    rows = [
        PaperRow(row["label"], row, config, _ours(ours) if ours else None)
        for row, config, ours in zip(printed["rows"], configs, found, strict=True)
    ]
    return PaperTable(number, printed["title"], printed["note"], rows), printed["study"]


def _matches(
    printed: Sequence[Row], configs: Sequence[Row], complete: Sequence[tuple[Row, Row]]
) -> list[list[Row]]:
    """Return the trials of each row. A row may name a key of the budget (a batch of 64): a trial
    with that value belongs to it alone, and not to the row that leaves the key open."""
    methods = [method(config) for config in configs]
    found: list[list[Row]] = [[] for _ in printed]
    for trial, own in complete:
        named = {
            place: _budget_keys(row)
            for place, row in enumerate(printed)
            if methods[place] == own and _has(trial["config"], _budget_keys(row))
        }
        most = max(map(len, named.values()), default=0)
        for place, keys in named.items():
            if len(keys) == most:
                found[place].append(trial)
    return found


def _budget_keys(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row["keys"].items() if key in BUDGET}


def _has(config: Row, values: Row) -> bool:
    return all(config.get(key) == value for key, value in values.items())


def _ours(trials: Sequence[Row]) -> Ours:
    """Return the best of the settings that match."""
    groups = grouped(trials)
    numbers = groups[0]["numbers"]
    members = sorted((t for t in trials if t["number"] in numbers), key=lambda t: t["number"])
    minutes = [t["minutes"] for t in members if t["minutes"] is not None]
    return Ours(
        numbers=numbers,
        settings=len(groups),
        values={column: _value(members, metric) for column, metric in PAPER_COLUMNS.items()},
        minutes=sum(minutes) / len(minutes) if minutes else None,
        trainable=members[0]["trainable_parameters"],
        config=_whole(members[0]["config"]),
    )


def _value(members: Sequence[Row], metric: str) -> Value:
    """Return one trial's bootstrap interval; of several seeds Student's interval of their mean."""
    if len(members) == 1:
        given = members[0]["estimates"].get(metric, {})
        return Value(members[0][metric], given.get("low"), given.get("high"))
    from statistics import mean, stdev

    from scipy.stats import t

    values = [row[metric] for row in members]
    centre, deviation = mean(values), stdev(values)
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / sqrt(len(values))
    return Value(centre, centre - half, centre + half, deviation)


def _unique(values: Sequence[Any]) -> list[Any]:
    return [value for place, value in enumerate(values) if value not in values[:place]]
