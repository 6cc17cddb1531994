"""Everything that a study's report shows, read from Optuna and MLflow; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from minbert.errors import InputError

from ..storage.lease import dispatcher_of
from ..storage.optuna import read_engine
from ..tracking import metric_keys
from ..tracking.run_reader import Absent, Runs
from ..trials.leaderboard import leaderboard
from ..trials.states import FAILED, RUNNING, WAITING, state_word
from .comparison import Pair, best_and_reference, differences, differing_config
from .paper_tables import PaperTable, beside_paper

if TYPE_CHECKING:
    import optuna

    from minbert import TaskPredictions

    from ..storage.home import Home

Row = Mapping[str, Any]
Read = TypeVar("Read")

CURVES = 50
"""Trials, the best first, whose learning curves are read."""
CURVE_KEYS = tuple(map(metric_keys.dev, metric_keys.SCORES))
_WORST = 10  # mistakes of a task
_NAMED = 12  # trials that lack the same are named


@dataclass
class StudyReport:
    """A study as its report shows it.

    Attributes:
        rows: the leaderboard.
        worked_on: whether a dispatcher has the study, if trials are running.
        pair: the best trial and what it is read against.
        gain: the best minus the other by metric (`comparison.differences`); None without both.
        changed: configuration keys in which the two differ, the other's value first.
        paper: tables of the paper that the study has rows of.
        predictions: on the dev sets, of the two, by trial number.
        worst: the best trial's worst mistakes by task.
        datasets: rows of each part of the data.
        curves: by trial number, metric and step.
        missing: what could not be read, a line each.
    """

    study: optuna.Study
    rows: list[dict[str, Any]]
    pair: Pair
    worked_on: bool = False
    gain: dict[str, dict[str, Any]] | None = None
    changed: dict[str, list[Any]] = field(default_factory=dict)
    paper: list[PaperTable] = field(default_factory=list)
    predictions: dict[int, dict[str, TaskPredictions]] = field(default_factory=dict)
    worst: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    datasets: dict[str, int] = field(default_factory=dict)
    curves: dict[int, dict[str, dict[int, float]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.study.study_name

    @property
    def ranked(self) -> list[dict[str, Any]]:
        """The complete trials, best first."""
        return [row for row in self.rows if row["rank"] is not None]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The study's fixed keys and its search; empty of a study that is not ours."""
        return self.study.user_attrs.get("settings") or {"config": {}, "search": {}}

    def count(self, state: str) -> int:
        """Say how many trials are in a state."""
        return sum(row["state"] == state for row in self.rows)


def gather(study: optuna.Study, home: Home) -> StudyReport:
    """Read a study as it is now, running or not. What is missing is noted, and left out."""
    rows = leaderboard(study)
    report = StudyReport(study, rows, best_and_reference(rows))
    if any(row["state"] == RUNNING for row in rows):
        report.worked_on = dispatcher_of(read_engine(home), study.study_name) is not None
    report.paper = beside_paper(study.study_name, rows)
    missing = _Missing()
    reader = _Reader(Runs(home), missing)
    best, reference = report.pair.best, report.pair.reference
    for row in (best, reference):
        if row is not None and (found := reader.predictions(row)) is not None:
            report.predictions[row["number"]] = found
    if best is not None:
        report.worst = _first(reader.ask(best, "worst mistakes", reader.runs.worst) or {})
        report.datasets = reader.ask(best, "rows of data", reader.runs.datasets) or {}
    if best is not None and reference is not None:
        report.changed = differing_config([reference, best])
        report.gain = _gain(report, best["number"], reference["number"])
    report.curves = _curves(rows, reader)
    _note_trials(report, missing)
    report.missing += missing.lines()
    return report


class _Missing:
    """What could not be read, by what and why, with the trials that lack it."""

    def __init__(self) -> None:
        self._trials: dict[tuple[str, str], list[int]] = {}

    def note(self, what: str, number: int, why: str) -> None:
        self._trials.setdefault((what, why), []).append(number)

    def lines(self) -> list[str]:
        return [
            f"{what}, {_trials(numbers)}: {why}" for (what, why), numbers in self._trials.items()
        ]


class _Reader:
    """Asks for what a trial's run has, and notes what it has not."""

    def __init__(self, runs: Runs, missing: _Missing) -> None:
        self.runs = runs
        self._missing = missing

    def ask(self, row: Row, what: str, question: Callable[[str | None], Read]) -> Read | None:
        try:
            return question(row["run_id"])
        except Absent as error:
            self._missing.note(what, row["number"], str(error))
            return None

    def predictions(self, row: Row) -> dict[str, TaskPredictions] | None:
        return self.ask(row, "dev predictions", self.runs.predictions)

    def curves(self, row: Row) -> dict[str, dict[int, float]] | None:
        return self.ask(row, "learning curves", lambda run: self.runs.curves(run, CURVE_KEYS))


def _first(worst: Mapping[str, Sequence[dict[str, str]]]) -> dict[str, list[dict[str, str]]]:
    return {task: list(rows[:_WORST]) for task, rows in worst.items()}


def _gain(report: StudyReport, best: int, reference: int) -> dict[str, dict[str, Any]] | None:
    ours, theirs = report.predictions.get(best), report.predictions.get(reference)
    if ours is None or theirs is None:
        return None
    try:
        return differences(ours, theirs)
    except InputError as error:
        report.missing.append(f"the difference of trials {best} and {reference}: {error}")
        return None


def _curves(rows: Sequence[Row], reader: _Reader) -> dict[int, dict[str, dict[int, float]]]:
    """Return the curves of the best trials of any state that have got anywhere."""
    found = {}
    for row in [row for row in rows if row["score"] is not None][:CURVES]:
        curves = reader.curves(row)
        if curves is not None and any(curves.values()):
            found[row["number"]] = curves
    return found


def _note_trials(report: StudyReport, missing: _Missing) -> None:
    """Note the trials that did not complete; failed ones with their reasons."""
    for row in report.rows:
        if row["state"] == FAILED:
            missing.note("failed", row["number"], row["reason"] or "no reason is recorded")
        elif row["state"] in (RUNNING, WAITING):
            state = state_word(row["state"], report.worked_on)
            missing.note("not ended", row["number"], f"it is {state}")


def _trials(numbers: Sequence[int]) -> str:
    named = ", ".join(map(str, sorted(numbers)[:_NAMED]))
    more = f" and {len(numbers) - _NAMED} more" if len(numbers) > _NAMED else ""
    return f"trial{'s' if len(numbers) > 1 else ''} {named}{more}"
