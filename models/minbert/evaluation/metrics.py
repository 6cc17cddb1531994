"""Scores and confusion matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from ..tasks.builtin import TASKS, get_task
from .predictions import TaskPredictions

_Score = TypeVar("_Score", float, np.ndarray)  # of one model, or of each resampling


def accuracy(predictions: TaskPredictions) -> float:
    """Return the share of examples whose class is right."""
    return float(np.mean(predictions.classes == predictions.labels))


def pearson(predictions: TaskPredictions) -> float:
    """Return Pearson's correlation of values and labels; 0 where one of them is constant."""
    if len(predictions.labels) < 2:
        return 0.0
    values, labels = (a.astype(np.float64) for a in (predictions.values, predictions.labels))
    with np.errstate(invalid="ignore"):  # of values that are no numbers
        r = float(correlation(values, labels))
    return r if np.isfinite(r) else 0.0


def correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation along the last axis of float64 arrays, [...] of [..., n]; 0
    where one of them is constant."""
    x, y = x - x.mean(-1, keepdims=True), y - y.mean(-1, keepdims=True)
    scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    return np.divide((x * y).sum(-1), scale, out=np.zeros_like(scale), where=scale > 0)


def task_metric(predictions: TaskPredictions) -> float:
    """Return the metric of a task: Pearson's correlation of a regression, else accuracy."""
    regression = get_task(predictions.task).kind == "regression"
    return pearson(predictions) if regression else accuracy(predictions)


def score(sst: _Score, para: _Score, sts: _Score) -> _Score:
    """Return the paper's score (section 5.2): accuracies, and the correlation moved to 0-1."""
    return (sst + para + (sts + 1) / 2) / 3


def all_scores(predictions: Mapping[str, TaskPredictions]) -> dict[str, float]:
    """Return every task's metric under its name, and ``score``."""
    scores = {task.metric: task_metric(predictions[task.name]) for task in TASKS}
    scores["score"] = score(*scores.values())
    return scores


def confusion_matrix(predictions: TaskPredictions) -> np.ndarray:
    """Return counts, int64 [classes, classes]; rows are labels, columns predictions."""
    count = len(get_task(predictions.task).classes)
    cells = predictions.labels.astype(np.int64) * count + predictions.classes
    return np.bincount(cells, minlength=count * count).reshape(count, count)
