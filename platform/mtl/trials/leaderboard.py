"""The leaderboard: one row a trial, best first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import TASK_METRICS, TASKS

from ..common.process import reading_many
from ..study.inputs import INPUTS
from .attributes import attributes_of, late_runs, run_of
from .constraints import exceeded
from .labels import trial_label
from .origin import ASKED_FROM, QUEUED, TOLD, is_ours
from .states import COMPLETE, FROM_OPTUNA
from .tally import REPLICATE

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_MEASURES = {"accuracy": "accuracy", "pearson": "Pearson"}
METRIC_TITLES = {"score": "score"} | {
    task.metric: f"{task.name.upper()} {_MEASURES[task.metric.rpartition('_')[2]]}"
    for task in TASKS
}
"""The scores of a trial, and what people call them."""
FIXED_COLUMNS = (
    "rank",
    "number",
    "state",
    "label",
    "replicate_of",
    "score",
    "score_low",
    "score_high",
    *TASK_METRICS,
    "best_epoch",
    "minutes",
    "trainable_parameters",
    "model_bytes",
    "run_id",
    "over",
    "reason",
)
_ORDER = {state: place for place, state in enumerate(FROM_OPTUNA.values())}


def leaderboard(study: optuna.Study) -> list[dict[str, Any]]:
    """Return one row a trial: complete ones by score, then pruned, running and failed ones.

    Each row holds ``FIXED_COLUMNS`` (None where a trial has none), ``params`` (what was searched,
    and what else differs between the trials), ``config`` (every configuration key),
    ``estimates`` (metrics with their 95 % intervals, see `minbert.Estimate`) and ``extra`` (it is
    none of the study file's: queued or added by a person). ``rank`` counts complete trials within
    their limits from 1, those aside whose value is not ours; trials of equal score stand in the
    order of their numbers.
    """
    with reading_many():
        trials = study.get_trials(deepcopy=False)
        late = late_runs(study, trials)
        known = [attributes_of(trial) for trial in trials]
        asked_from = study.user_attrs.get(ASKED_FROM)
        rows = [_row(t, run_of(t, late), given) for t, given in zip(trials, known, strict=True)]
        if asked_from is not None:
            _mark_others(rows, trials, known, asked_from)
        rows.sort(key=_place)
    keys = _distinguishing_keys(study, known, rows)
    for row in rows:
        values = row["params"] | row["config"]
        row["params"] = {key: values[key] for key in keys if key in values}
    ranked = [row for row in rows if row["state"] == COMPLETE and not _no_candidate(row)]
    for rank, row in enumerate(ranked, start=1):
        row["rank"] = rank
    return rows


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the best trial of a leaderboard; None where none is complete within its limits."""
    return next((row for row in rows if row["rank"] == 1), None)


def why_no_best(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say why :func:`best_of` of these rows is None."""
    complete = [row for row in rows if row["state"] == COMPLETE]
    if any(row["over"] for row in complete):
        return "every complete trial is over a limit"
    if complete:
        return "no trial was trained to its end"
    return "no trial is complete"


def row_label(row: Mapping[str, Any], seed: bool = True) -> str:
    """Write what a row's trial was given: its label, or its parameters; with ``seed`` its seed too
    where that is what differs."""
    params = row["params"]
    if not seed:
        params = {key: value for key, value in params.items() if key != "train.seed"}
    return trial_label(params, row["label"])


def replicated(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether some trial was repeated with another seed."""
    return any(row["replicate_of"] is not None for row in rows)


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a setting, best mean first: the complete trials of all its seeds together.

    Each holds ``setting``, ``numbers`` (of the trials, the original first), and for ``score``, the
    tasks' scores and ``minutes`` a pair (mean, standard deviation; None of a single trial).
    """
    groups: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["state"] == COMPLETE:
            original = row["replicate_of"]
            groups.setdefault(row["number"] if original is None else original, []).append(row)
    made = [_group(sorted(members, key=itemgetter("number"))) for members in groups.values()]
    return sorted(made, key=lambda group: (-group["score"][0], group["numbers"][0]))


def _group(members: list[Mapping[str, Any]]) -> dict[str, Any]:
    first = members[0]
    measured = ("score", *TASK_METRICS, "minutes")
    return {
        "setting": row_label(first, seed=False),
        "numbers": [row["number"] for row in members],
        "trainable_parameters": first["trainable_parameters"],
        **{key: _mean_and_deviation([row[key] for row in members]) for key in measured},
    }


def _mean_and_deviation(values: list[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    return mean(known), stdev(known) if len(known) > 1 else None


def _row(trial: FrozenTrial, run_id: str | None, known: Mapping[str, Any]) -> dict[str, Any]:
    scores = known.get("scores") or {}
    estimates = known.get("estimates") or {}
    interval = estimates.get("score", {})
    return {
        "rank": None,
        "number": trial.number,
        "state": FROM_OPTUNA[trial.state.name],
        "label": known.get("label"),
        "replicate_of": known.get(REPLICATE),
        "score": _score(trial),
        "score_low": interval.get("low"),
        "score_high": interval.get("high"),
        **{name: scores.get(name) for name in TASK_METRICS},
        "best_epoch": known.get("best_epoch"),
        "minutes": known.get("minutes"),
        "trainable_parameters": known.get("trainable_parameters"),
        "model_bytes": known.get("model_bytes"),
        "run_id": run_id,
        "over": ", ".join(exceeded(trial)) or None,
        "reason": known.get("reason"),
        "params": dict(trial.params),
        "config": dict(known.get("config") or {}),
        "estimates": estimates,
        "extra": False,
    }


def _mark_others(
    rows: Sequence[dict[str, Any]],
    trials: Sequence[FrozenTrial],
    known: Sequence[Mapping[str, Any]],
    asked_from: int,
) -> None:
    """Mark what a person has queued or added, and what somebody else has told, in a study whose
    trials bear marks."""
    for row, trial, given in zip(rows, trials, known, strict=True):
        row["extra"] = QUEUED in given or not is_ours(trial, given, asked_from)
        if trial.state.is_finished() and "reason" not in given and "scores" not in given:
            row["reason"] = TOLD


def _distinguishing_keys(
    study: optuna.Study, known: Sequence[Mapping], rows: list[dict]
) -> list[str]:
    """Return the keys that tell the trials apart, or will when there are more of them.

    A point of a study file may set what no parameter of Optuna holds (no LoRA at all, where its
    rank is searched from 1): it differs between the configurations all the same.
    """
    points = {given["point"] for given in known if given.get("point")}
    named = {key for point in points for key in json.loads(point)}
    named |= (study.user_attrs.get("settings") or {"search": {}})["search"].keys()
    inputs = study.user_attrs.get(INPUTS) or {}
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row["config"].items():
            if key in inputs:  # the same files may have lain elsewhere
                value = inputs[key].get(value, value)
            values.setdefault(key, set()).add(repr(value))
    searched = {key for row in rows for key in row["params"]}
    named |= searched
    keys = [key for key, seen in values.items() if key in named or len(seen) > 1]
    return keys + sorted(searched - values.keys())


def _score(trial: optuna.trial.FrozenTrial) -> float | None:
    """Return the final score; of a trial without one the best that it had reached."""
    if trial.value is not None:
        return trial.value
    reached = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
    return max(reached, default=None)


def _place(row: dict[str, Any]) -> tuple[int, bool, float, int]:
    worst_last = math.inf if row["score"] is None else -row["score"]
    return _ORDER[row["state"]], _no_candidate(row), worst_last, row["number"]


def _no_candidate(row: Mapping[str, Any]) -> bool:
    """Say whether a complete trial is none for the best: it is over a limit, or somebody else said
    what it scored."""
    return row["state"] == COMPLETE and (bool(row["over"]) or row["reason"] == TOLD)
