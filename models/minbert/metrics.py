"""Scores and confusion matrices."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from scipy.stats import DegenerateDataWarning, pearsonr
from sklearn.metrics import confusion_matrix as _confusion_matrix

from .reports import TaskPredictions
from .tasks import BY_NAME, TASKS


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


def task_metric(predictions: TaskPredictions) -> float:
    """Return the metric of a task: Pearson's correlation of a regression, else accuracy."""
    regression = BY_NAME[predictions.task].kind == "regression"
    return pearson(predictions) if regression else accuracy(predictions)


def score(sst: float, para: float, sts: float) -> float:
    """Return the paper's score (section 5.2): accuracies, and the correlation moved to 0-1."""
    return (sst + para + (sts + 1) / 2) / 3


def all_scores(predictions: Mapping[str, TaskPredictions]) -> dict[str, float]:
    """Return every task's metric under its name, and ``score``."""
    scores = {task.metric: task_metric(predictions[task.name]) for task in TASKS}
    scores["score"] = score(*scores.values())
    return scores


def confusion_matrix(predictions: TaskPredictions) -> np.ndarray:
    """Return counts, int64 [classes, classes]; rows are labels, columns predictions."""
    count = len(BY_NAME[predictions.task].classes)
    labels = predictions.labels.astype(np.int64)
    return _confusion_matrix(labels, predictions.classes, labels=range(count))
