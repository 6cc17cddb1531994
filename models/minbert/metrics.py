"""Scores and confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, pearsonr
from sklearn.metrics import confusion_matrix as _confusion_matrix

from .reports import TaskPredictions
from .tasks import BY_NAME, TASKS

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]


def accuracy(predictions: TaskPredictions) -> float:
    """Return the share of examples whose class is right."""
    return float(np.mean(predictions.classes == predictions.labels))


def pearson(predictions: TaskPredictions) -> float:
    """Return Pearson's correlation of values and labels; 0 where one of them is constant."""
    if len(predictions.labels) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        r = float(pearsonr(predictions.values, predictions.labels).statistic)
    return r if np.isfinite(r) else 0.0


def score(sst: float, para: float, sts: float) -> float:
    """Return the paper's score (section 5.2): accuracies, and the correlation moved to 0-1."""
    return (sst + para + (sts + 1) / 2) / 3


def all_scores(predictions: Mapping[str, TaskPredictions]) -> dict[str, float]:
    """Return every task's metric under its name, and ``score``."""
    scores = {
        task.metric: (pearson if task.kind == "regression" else accuracy)(predictions[task.name])
        for task in TASKS
    }
    scores["score"] = score(*scores.values())
    return scores


RESAMPLES = 1000  # of the dev examples, for intervals
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


def bootstrap(statistic: Statistic, values: np.ndarray, labels: np.ndarray) -> Estimate:
    """Bootstrap a metric over examples (Efron 1979), always with the same samples.

    Args:
        statistic: from values and labels [..., examples] to the metric [...].
        values, labels: [examples].
    """
    rng = np.random.default_rng(_SEED)
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    spread = statistic(values[picks], labels[picks])
    low, high = np.percentile(spread, [2.5, 97.5])
    point = float(statistic(values, labels))
    return Estimate(point, float(spread.mean()), float(spread.std(ddof=1)), float(low), float(high))


def estimate(predictions: TaskPredictions) -> Estimate:
    """Return a task's metric (accuracy or Pearson's correlation) with its interval."""
    labels = predictions.labels.astype(np.float64)
    if BY_NAME[predictions.task].kind == "regression":
        return bootstrap(_correlation, predictions.values.astype(np.float64), labels)
    return bootstrap(lambda c, y: (c == y).mean(-1), predictions.classes, labels)


def regression_estimates(predictions: TaskPredictions) -> dict[str, Estimate]:
    """Return MSE, RMSE, MAE and R2 with their bootstrap (the paper's appendix H)."""
    values, labels = (a.astype(np.float64) for a in (predictions.values, predictions.labels))
    return {name: bootstrap(statistic, values, labels) for name, statistic in REGRESSION.items()}


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


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


def confusion_matrix(predictions: TaskPredictions) -> np.ndarray:
    """Return counts, int64 [classes, classes]; rows are labels, columns predictions."""
    count = len(BY_NAME[predictions.task].classes)
    labels = predictions.labels.astype(np.int64)
    return _confusion_matrix(labels, predictions.classes, labels=range(count))
