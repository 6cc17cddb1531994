"""What a trial may take: a model that is too large is no answer, however well it scores.

Optuna knows trials over a limit as infeasible: its TPE sampler prefers the others, and the
dashboard marks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..study.limits import LIMITS

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

_DASHBOARD = "constraints"  # Optuna 5 keeps one key a constraint; the dashboard reads this list


def set_constraints(trial: Trial, limits: Mapping[str, float], known: Mapping[str, Any]) -> None:
    """Note by how much a trial is over each limit (0 or less: within it).

    Args:
        known: attributes of the trial, by the limits' names.
    """
    if not limits:
        return
    over = {name: float(known[name] - limit) for name, limit in limits.items()}
    for name, value in over.items():
        trial.set_constraint(name, value)
    storage = trial.study._storage
    storage.set_trial_system_attr(trial._trial_id, _DASHBOARD, list(over.values()))


def exceeded(trial: FrozenTrial) -> list[str]:
    """Name the limits that a trial is over."""
    over = trial.constraints
    return [name for name in LIMITS if over.get(name, 0.0) > 0]
