"""Optuna's CMA-ES without its pickle."""

from __future__ import annotations

import numpy as np
from optuna.samplers import CmaEsSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial


class ReplayedCmaEs(CmaEsSampler):
    """Optuna's CMA-ES, its state replayed from the scores of the trials that it has proposed.

    Optuna keeps the state in the storage as a pickle, and loads it from there: whoever may write
    the storage could have the dispatcher run what he likes. Here it is neither written nor read,
    and it depends on nothing but the trials that have ended.
    """

    def _restore_optimizer(self, completed_trials: list[FrozenTrial]) -> None:
        self._completed = completed_trials

    def _init_optimizer(self, trans, direction):
        optimizer = super()._init_optimizer(trans, direction)
        sign = 1.0 if direction == StudyDirection.MINIMIZE else -1.0
        # To the end of the last whole generation: so Optuna finds none to learn from, which is
        # when it would write the state down.
        while True:
            told = self._get_solution_trials(self._completed, optimizer.generation)
            if len(told) < optimizer.population_size:
                return optimizer
            told = told[: optimizer.population_size]
            optimizer.tell([_solution(trial, trans, sign) for trial in told])


def _solution(trial: FrozenTrial, trans, sign: float) -> tuple[np.ndarray, float]:
    """Return a trial's parameters and value as CMA-ES, which minimises, has them."""
    assert trial.value is not None, "a complete trial has a value"
    return trans.transform(trial.params), sign * trial.value
