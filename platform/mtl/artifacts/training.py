"""The artifacts of one training: what its best epoch got right and wrong, to look at."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minbert.evaluation.intervals import Estimate
from minbert.evaluation.metrics import confusion_matrix
from minbert.tasks.builtin import get_task

from .csv_tables import write_csv
from .interactive import confusion_page, residuals_page
from .pictures import confusion_png, residuals_png

if TYPE_CHECKING:
    from minbert import EpochReport, TaskPredictions

_WORST = 50  # rows in a table of worst mistakes
_drawing = threading.Lock()  # matplotlib keeps fonts and settings for a process, without locks


def write_report(report: EpochReport, folder: Path) -> list[Path]:
    """Write confusion matrices, residuals and predictions of an evaluation under ``folder``.

    Returns:
        The pictures (PNG), in the order of the tasks.
    """
    pictures = []
    for name, predictions in report.predictions.items():
        if get_task(name).kind == "regression":
            pictures.append(_write_residuals(predictions, folder / "residuals"))
        else:
            pictures.append(_write_confusion(predictions, folder / "confusion_matrix"))
        _write_predictions(predictions, folder / "predictions")
    return pictures


def write_estimates(estimates: Mapping[str, Estimate], path: Path) -> None:
    """Write metrics with bootstrap mean, standard deviation and 95 % interval, one a line."""
    rows = ([name, *map(_digits, astuple(given))] for name, given in estimates.items())
    write_csv(path, ["metric", *(f.name for f in fields(Estimate))], rows)


def write_config(keys: Mapping[str, object], path: Path) -> None:
    """Write a configuration as the ``[config]`` table of a study file."""
    lines = [f"{json.dumps(key)} = {_toml(value)}" for key, value in keys.items()]
    comment = "# Every configuration key of this training; a study file can hold this table."
    path.write_text("\n".join([comment, "[config]", *lines, ""]), encoding="utf-8")


def _toml(value: object) -> str:
    """Return a configuration value as a TOML literal (JSON's strings and lists are TOML's)."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _write_confusion(predictions: TaskPredictions, folder: Path) -> Path:
    task = get_task(predictions.task)
    matrix = confusion_matrix(predictions)
    rows = ([name, *map(int, counts)] for name, counts in zip(task.classes, matrix, strict=True))
    write_csv(folder / f"{task.name}.csv", ["true \\ predicted", *task.classes], rows)
    _write_page(folder / f"{task.name}.html", confusion_page(predictions, matrix))
    picture = folder / f"{task.name}.png"
    with _drawing:
        confusion_png(task, matrix, picture)
    return picture


def _write_residuals(predictions: TaskPredictions, folder: Path) -> Path:
    residuals = predictions.values - predictions.labels
    columns = (predictions.ids, predictions.labels, predictions.values, residuals)
    rows = ([key, *map(_digits, numbers)] for key, *numbers in zip(*columns, strict=True))
    header = ["id", "label", "prediction", "residual"]
    write_csv(folder / f"{predictions.task}.csv", header, rows)
    _write_page(folder / f"{predictions.task}.html", residuals_page(predictions))
    picture = folder / f"{predictions.task}.png"
    with _drawing:
        residuals_png(predictions, picture)
    return picture


def _write_page(path: Path, page: str) -> None:
    path.write_text(page, encoding="utf-8")


def _write_predictions(predictions: TaskPredictions, folder: Path) -> None:
    """Write all dev predictions in the file's order, and the worst mistakes, worst first."""
    task = get_task(predictions.task)
    sure = _probability(predictions)
    guessed = predictions.values if task.kind == "regression" else predictions.classes
    error = guessed - predictions.labels
    header = ["id", "label", "prediction", "probability", "error", *task.text_columns]
    if sure is None:
        header.remove("probability")
    whole = int if task.whole_labels else _digits
    rows = []
    for i, (key, text) in enumerate(zip(predictions.ids, predictions.texts, strict=True)):
        numbers = [whole(predictions.labels[i]), whole(guessed[i])]
        numbers += [] if sure is None else [_digits(sure[i])]
        rows.append([key, *numbers, whole(error[i]), *text])
    write_csv(folder / f"dev-{task.name}.csv", header, rows)
    order = _worst_first(error, sure, predictions)
    write_csv(folder / f"worst-{task.name}.csv", header, (rows[i] for i in order))


def _digits(value: np.floating) -> float:
    """Return the six digits of a float32 that mean something."""
    return float(f"{value:.6g}")


def _probability(predictions: TaskPredictions) -> np.ndarray | None:
    """Return the probability of the predicted class [n]; of a paraphrase, for pairs."""
    kind = get_task(predictions.task).kind
    if kind == "regression":
        return None
    if kind == "binary":
        return predictions.values
    logits = predictions.outputs - predictions.outputs.max(axis=1, keepdims=True)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return shares.max(axis=1)


def _worst_first(
    error: np.ndarray, sure: np.ndarray | None, predictions: TaskPredictions
) -> list[int]:
    """Return the rows of the largest errors; among equal ones those the model was surest of."""
    if get_task(predictions.task).kind == "binary":
        confidence = np.abs(predictions.values - predictions.labels)
    else:
        confidence = np.zeros(len(error)) if sure is None else sure
    order = np.lexsort((-confidence, -np.abs(error)))[:_WORST]
    return [int(i) for i in order if error[i] != 0]
