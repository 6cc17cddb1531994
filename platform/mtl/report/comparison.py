"""Trials against each other: what they were given, how sure their difference is, where they part.

Differences are always the other trial minus the reference, on the same dev examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minbert.errors import InputError
from minbert.tasks.builtin import TASK_METRICS, get_task

from ..tracking.run_reader import Absent, Runs
from ..trials.leaderboard import leaderboard, row_label, why_no_best
from ..trials.states import RUNNING

if TYPE_CHECKING:
    import optuna

    from minbert import TaskPredictions

    from ..storage.home import Home

Row = Mapping[str, Any]
Predictions = Mapping[str, "TaskPredictions"]

_MOST = 10  # examples of a task that are shown


class Pair(NamedTuple):
    """The best trial, and the one that it is read against; `reason` says why that one, or why
    there is none."""

    best: Row | None
    reference: Row | None
    reason: str


def best_and_reference(rows: Sequence[Row]) -> Pair:
    """Choose what the best trial is read against: trial 0, the first point of the study file.

    Where trial 0 (or another seed of it) is the best itself, or has not completed, it is the best
    trial of another setting.
    """
    ranked = [row for row in rows if row["rank"] is not None]
    if not ranked:
        return Pair(None, None, why_no_best(rows))
    best = ranked[0]
    others = [row for row in ranked if _original(row) != _original(best)]
    first = next((row for row in others if row["number"] == 0), None)
    if first is not None:
        return Pair(best, first, "the baseline: the first point of the study file")
    if not others:
        return Pair(best, None, "no other setting is complete")
    return Pair(best, others[0], f"the second best setting, because {_why_not_first(best)}")


def _why_not_first(best: Row) -> str:
    if best["number"] == 0:
        return "trial 0 is the best"
    return "the best is another seed of trial 0" if best["replicate_of"] == 0 else (
        "trial 0 is not complete")  # fmt: skip


def _original(row: Row) -> int:
    return row["number"] if row["replicate_of"] is None else row["replicate_of"]


def differences(ours: Predictions, theirs: Predictions) -> dict[str, dict[str, Any]]:
    """Return ours minus theirs by metric: the fields of `minbert.Estimate`, and ``stands``:
    whether the 95 % interval excludes 0 (the difference is significant).

    Raises:
        InputError: they were not evaluated on the same examples.
    """
    import minbert

    found = minbert.differences(ours, theirs)
    return {
        name: asdict(given) | {"stands": given.low > 0 or given.high < 0}
        for name, given in found.items()
    }


def differing_config(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Return the configuration keys in which trials differ, with the value of each trial."""
    keys = dict.fromkeys(key for row in rows for key in row["config"])
    table = {key: [row["config"].get(key) for row in rows] for key in keys}
    return {key: values for key, values in table.items() if any(v != values[0] for v in values)}


def disagreements(
    reference: Predictions, other: Predictions, most: int = _MOST
) -> dict[str, dict[str, Any]]:
    """Return for each task where two models disagree most.

    Of classes: ``reference_right`` and ``other_right`` count the examples that only one of them
    gets right; ``examples`` are such ones, those with the largest distance of the predictions
    first. Of a regression they count whose error is smaller, and the examples are those whose
    absolute error changes most.
    """
    return {name: _disagreement(reference[name], other[name], most) for name in reference}


def _disagreement(one: TaskPredictions, two: TaskPredictions, most: int) -> dict[str, Any]:
    if get_task(one.task).kind == "regression":
        gain = np.abs(one.values - one.labels) - np.abs(two.values - two.labels)
        size, guesses = np.abs(gain), (one.values, two.values)
    else:
        gain = _right(two) - _right(one)
        size, guesses = np.abs(gain) * (1 + np.abs(two.values - one.values)), _classes(one, two)
    order = [i for i in np.argsort(-size, kind="stable")[:most] if gain[i] != 0]
    return {
        "reference_right": int((gain < 0).sum()),
        "other_right": int((gain > 0).sum()),
        "examples": [_example(one, guesses, int(i)) for i in order],
    }


def _right(given: TaskPredictions) -> np.ndarray:
    return (given.classes == given.labels).astype(int)


def _classes(one: TaskPredictions, two: TaskPredictions) -> tuple[np.ndarray, np.ndarray]:
    return one.classes, two.classes


def _example(given: TaskPredictions, guesses: tuple[np.ndarray, ...], i: int) -> dict[str, Any]:
    return {
        "id": given.ids[i],
        "texts": list(given.texts[i]),
        "label": given.labels[i].item(),
        "reference": guesses[0][i].item(),
        "other": guesses[1][i].item(),
    }


# ---- the command -------------------------------------------------------------------------------


def compare_trials(study: optuna.Study, numbers: Sequence[int], home: Home) -> dict[str, Any]:
    """Compare trials of a recorded study, each with the first; without numbers the best one with
    the baseline.

    Returns:
        ``study``, ``reason`` (of the choice, or why there is nothing to compare yet; None where
        trials were given), ``trials`` (number, setting, state, score and task scores with
        ``estimates``; none where there is nothing to compare), ``config`` (the keys that
        differ, a value a trial), ``differences`` (one for each trial but the first), and
        ``disagreements`` (of two trials, else None).

    Raises:
        InputError: no such trial, only one number, or a trial without predictions.
    """
    rows = leaderboard(study)
    chosen, reason = _chosen(rows, numbers, study.study_name)
    runs = Runs(home)
    predictions = [_predictions(runs, row) for row in chosen]
    first = predictions[0] if predictions else {}
    return {
        "study": study.study_name,
        "reason": reason,
        "trials": [_facts(row) for row in chosen],
        "config": differing_config(chosen),
        "differences": [differences(given, first) for given in predictions[1:]],
        "disagreements": disagreements(first, predictions[1]) if len(chosen) == 2 else None,
    }


def _chosen(
    rows: Sequence[Row], numbers: Sequence[int], study: str
) -> tuple[list[Row], str | None]:
    if not numbers:
        best, reference, reason = best_and_reference(rows)
        if best is None or reference is None:
            return [], reason
        return [reference, best], reason
    by_number = {row["number"]: row for row in rows}
    for number in numbers:
        if number not in by_number:
            raise InputError(f"study {study} has no trial {number}; {_known(by_number)}")
    if len(set(numbers)) < len(numbers) or len(numbers) < 2:
        raise InputError("give two or more different trials, or none for best against baseline")
    return [by_number[number] for number in numbers], None


def _known(numbers: Mapping[int, Row]) -> str:
    if not numbers:
        return "it has none yet"
    return f"its trials are {min(numbers)} to {max(numbers)}"


def _predictions(runs: Runs, row: Row) -> Predictions:
    if row["score"] is None or not row["estimates"]:
        why = "it has not ended" if row["state"] == RUNNING else f"its state is {row['state']}"
        raise InputError(f"trial {row['number']} has no predictions: {why}")
    try:
        return runs.predictions(row["run_id"])
    except Absent as error:
        raise InputError(f"trial {row['number']} has no predictions: {error}") from None


def _facts(row: Row) -> dict[str, Any]:
    kept = ("number", "state", "score", *TASK_METRICS, "minutes", "trainable_parameters", "run_id")
    return {key: row[key] for key in kept} | {
        "setting": row_label(row),
        "estimates": row["estimates"],
    }
