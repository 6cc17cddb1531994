"""How sure a metric is: bootstrap intervals of scores, of errors, and of differences of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..tasks.builtin import TASKS, get_task
from .metrics import all_scores, correlation, score, task_metric
from .predictions import TaskPredictions

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]

RESAMPLES = 1000  # of the dev examples
_SEED = 11711


@dataclass(frozen=True)
class Estimate:
    """A metric with what resampling the examples says of it.

    Attributes:
        value: on the examples themselves.
        mean, deviation: over bootstrap samples.
        low, high: 95 % percentile interval.
    """

    value: float
    mean: float
    deviation: float
    low: float
    high: float


def bootstrap(
    statistic: Statistic, values: np.ndarray, labels: np.ndarray, stream: int = 0
) -> Estimate:
    """Bootstrap a metric over examples (Efron 1979), always with the same samples.

    Args:
        statistic: from values and labels [..., examples] to the metric [...].
        values, labels: [examples].
        stream: of random numbers, see :func:`resampled`.
    """
    spread = resampled(statistic, values, labels, stream)
    return _estimate(float(statistic(values, labels)), spread)


def resampled(
    statistic: Statistic, values: np.ndarray, labels: np.ndarray, stream: int = 0
) -> np.ndarray:
    """Return a metric over bootstrap samples of the examples, [RESAMPLES].

    The samples depend on the stream and the number of examples alone: two models on the same
    examples get the same ones, so their differences are paired. Each task has a stream of its own:
    tasks with as many examples must not be resampled alike.
    """
    rng = np.random.default_rng([_SEED, stream])
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    return statistic(values[picks], labels[picks])


def estimate(predictions: TaskPredictions) -> Estimate:
    """Return a task's metric (accuracy or Pearson's correlation) with its interval."""
    return bootstrap(*_metric(predictions))


def estimates(predictions: Mapping[str, TaskPredictions]) -> dict[str, Estimate]:
    """Return each task's metric, ``score``, and the errors of a regression (``sts_mse``), with
    their intervals, under the names of `all_scores`. The score resamples each task by itself."""
    points = all_scores(predictions)
    spreads = {name: resampled(*_metric(given)) for name, given in predictions.items()}
    found = {task.metric: _estimate(points[task.metric], spreads[task.name]) for task in TASKS}
    found["score"] = _estimate(points["score"], score(*(spreads[task.name] for task in TASKS)))
    for task in TASKS:
        if task.kind == "regression":
            named = regression_estimates(predictions[task.name])
            found |= {f"{task.name}_{metric}": given for metric, given in named.items()}
    return found


def differences(
    ours: Mapping[str, TaskPredictions], theirs: Mapping[str, TaskPredictions]
) -> dict[str, Estimate]:
    """Return by how much two models differ on the same examples, ours minus theirs: each task's
    metric and ``score``, by paired bootstrap (Efron & Tibshirani 1993).

    Raises:
        InputError: they were not evaluated on the same examples.
    """
    points: list[float] = []
    spreads: list[np.ndarray] = []
    for task in TASKS:
        one, other = ours[task.name], theirs[task.name]
        if list(one.ids) != list(other.ids):
            raise InputError(f"{task.title}: the dev examples differ; nothing can be paired")
        points.append(task_metric(one) - task_metric(other))
        spreads.append(resampled(*_metric(one)) - resampled(*_metric(other)))
    found = {
        task.metric: _estimate(point, spread)
        for task, point, spread in zip(TASKS, points, spreads, strict=True)
    }
    constant = score(0.0, 0.0, 0.0)  # of the correlation's move to 0-1: it falls out
    found["score"] = _estimate(score(*points) - constant, score(*spreads) - constant)
    return found


def regression_estimates(predictions: TaskPredictions) -> dict[str, Estimate]:
    """Return MSE, RMSE, MAE and R2 with their bootstrap (the paper's appendix H)."""
    values, labels = (a.astype(np.float64) for a in (predictions.values, predictions.labels))
    return {name: bootstrap(statistic, values, labels) for name, statistic in REGRESSION.items()}


def _estimate(point: float, spread: np.ndarray) -> Estimate:
    low, high = np.percentile(spread, [2.5, 97.5])
    return Estimate(point, float(spread.mean()), float(spread.std(ddof=1)), float(low), float(high))


def _metric(predictions: TaskPredictions) -> tuple[Statistic, np.ndarray, np.ndarray, int]:
    """Return the statistic of a task's metric, the values and labels that it takes, its stream."""
    stream = 1 + TASKS.index(get_task(predictions.task))
    labels = predictions.labels.astype(np.float64)
    if get_task(predictions.task).kind == "regression":
        return correlation, predictions.values.astype(np.float64), labels, stream
    return lambda classes, truth: (classes == truth).mean(-1), predictions.classes, labels, stream


def _mse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.square(x - y).mean(-1)


def _r2(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficient of determination; 0 where all labels are equal."""
    variance = y.var(-1)
    return 1 - np.divide(_mse(x, y), variance, out=np.ones_like(variance), where=variance > 0)


REGRESSION: dict[str, Statistic] = {
    "mse": _mse,
    "rmse": lambda x, y: np.sqrt(_mse(x, y)),
    "mae": lambda x, y: np.abs(x - y).mean(-1),
    "r2": _r2,
}
