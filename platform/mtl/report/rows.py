"""The leaderboard: one row a trial, best first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

SCORES = ("sst_accuracy", "para_accuracy", "sts_pearson")
FIXED_COLUMNS = (
    "rank",
    "number",
    "state",
    "score",
    *SCORES,
    "best_epoch",
    "minutes",
    "trainable_parameters",
    "run_id",
    "reason",
)
# Optuna's word -> ours, in the order of the leaderboard.
_STATES = {
    "COMPLETE": "complete",
    "PRUNED": "pruned",
    "RUNNING": "running",
    "WAITING": "waiting",
    "FAIL": "failed",
}
_ORDER = {state: place for place, state in enumerate(_STATES.values())}


def leaderboard(study: optuna.Study) -> list[dict[str, Any]]:
    """Return one row a trial: complete ones by score, then pruned, running and failed ones.

    Each row holds ``FIXED_COLUMNS`` (None where a trial has none), ``params`` (what was searched,
    and what else differs between the trials) and ``config`` (every configuration key). ``rank``
    counts complete trials from 1; trials of equal score stand in the order of their numbers.
    """
    rows = sorted((_row(trial) for trial in study.get_trials(deepcopy=False)), key=_place)
    keys = _varied(rows)
    for row in rows:
        known = row["params"] | row["config"]
        row["params"] = {key: known[key] for key in keys if key in known}
    ranked = [row for row in rows if row["state"] == "complete"]
    for rank, row in enumerate(ranked, start=1):
        row["rank"] = rank
    return rows


def _row(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    known = trial.user_attrs
    scores = known.get("scores") or {}
    return {
        "rank": None,
        "number": trial.number,
        "state": _STATES[trial.state.name],
        "score": _score(trial),
        **{name: scores.get(name) for name in SCORES},
        "best_epoch": known.get("best_epoch"),
        "minutes": known.get("minutes"),
        "trainable_parameters": known.get("trainable_parameters"),
        "run_id": known.get("mlflow_run_id"),
        "reason": known.get("reason"),
        "params": dict(trial.params),
        "config": dict(known.get("config") or {}),
    }


def _varied(rows: list[dict[str, Any]]) -> list[str]:
    """Return the keys that tell the trials apart.

    A point of a study file may set what is not searched (no LoRA at all, say): such a key is no
    parameter of any trial, but differs between their configurations.
    """
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row["config"].items():
            values.setdefault(key, set()).add(repr(value))
    searched = {key for row in rows for key in row["params"]}
    varied = [key for key, seen in values.items() if key in searched or len(seen) > 1]
    return varied + sorted(searched - values.keys())


def _score(trial: optuna.trial.FrozenTrial) -> float | None:
    """Return the final score; of a trial without one the best that it had reached."""
    if trial.value is not None:
        return trial.value
    reached = [value for value in trial.intermediate_values.values() if not math.isnan(value)]
    return max(reached, default=None)


def _place(row: dict[str, Any]) -> tuple[int, float, int]:
    score = row["score"]
    return _ORDER[row["state"]], math.inf if score is None else -score, row["number"]
