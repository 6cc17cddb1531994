"""What a run left in MLflow, read back: its dev predictions, worst mistakes, curves and data."""

from __future__ import annotations

import csv
import http.client
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from minbert.common.csv_cells import cell_text
from minbert.errors import InputError
from minbert.evaluation.predictions import TaskPredictions
from minbert.tasks.builtin import TASKS, get_task
from minbert.tasks.task import Task

from ..common.masking import clean, masked
from ..storage.urls import is_server
from .looking import look
from .store import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ..storage.home import Home


class Absent(Exception):
    """Something that a run should have is not there; the text says what, and why."""


class Runs:
    """Reads the runs of one MLflow store, a SQLite file or a server. Writes nothing.

    Each method raises `Absent` where a run does not have what is asked for: it was removed, it
    has not come so far, the store is away.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._client: MlflowClient | None = None
        self._away: str | None = None

    def predictions(self, run_id: str | None) -> dict[str, TaskPredictions]:
        """Return the dev predictions of a run's best epoch, by task.

        The heads' raw outputs are not kept; ``outputs`` is NaN.
        """
        return {
            task.name: _predictions(task, rows, run_id)
            for task, rows in self._tables(run_id, "dev").items()
        }

    def worst(self, run_id: str | None) -> dict[str, list[dict[str, str]]]:
        """Return the worst mistakes of a run by task, the worst first, as the files have them."""
        return {task.name: rows for task, rows in self._tables(run_id, "worst").items()}

    def curves(self, run_id: str | None, keys: tuple[str, ...]) -> dict[str, dict[int, float]]:
        """Return metrics by step: ``{"dev/score": {100: 0.5}}``."""
        client = self._opened(run_id)
        return {
            key: {p.step: p.value for p in _asked(client.get_metric_history, run_id, key)}
            for key in keys
        }

    def datasets(self, run_id: str | None) -> dict[str, int]:
        """Return the rows of each part of the data that a run read: ``{"sst/train": 8544}``."""
        inputs = _asked(self._opened(run_id).get_run, run_id).inputs.dataset_inputs
        profiles = {part.dataset.name: json.loads(part.dataset.profile or "{}") for part in inputs}
        found = {name: given["num_rows"] for name, given in profiles.items() if "num_rows" in given}
        if not found:
            raise Absent(f"run {run_id} does not say what data it read")
        return found

    def _tables(self, run_id: str | None, kind: str) -> dict[Task, list[dict[str, str]]]:
        client = self._opened(run_id)
        paths = {task: f"predictions/{kind}-{task.name}.csv" for task in TASKS}
        there = {found.path for found in _asked(client.list_artifacts, run_id, "predictions")}
        lacking = [path for path in paths.values() if path not in there]
        if lacking:
            raise Absent(f"run {run_id} has no {', no '.join(lacking)}")
        with tempfile.TemporaryDirectory(prefix="mtl-runs-") as folder:
            return {
                task: _read(_asked(client.download_artifacts, run_id, path, folder))
                for task, path in paths.items()
            }

    def _opened(self, run_id: str | None) -> MlflowClient:
        if run_id is None:
            raise Absent("it has no run in MLflow")
        if self._client is None and self._away is None:
            self._open()
        if self._client is None:
            raise Absent(str(self._away))
        return self._client

    def _open(self) -> None:
        """Connect once; a store that is away is not asked again for each trial."""
        self._away = _unreachable(self._home.mlflow_uri)
        if self._away is None:
            try:
                self._client = look(self._home)
            except InputError as error:
                self._away = str(error)


def _unreachable(uri: str) -> str | None:
    """Say why a store cannot even be asked: a client tries for minutes, or makes a new file."""
    from ..common.http_probe import ask

    file = sqlite_file(uri)
    if file is not None:
        return None if file.is_file() else f"there is no MLflow store {file}"
    if not is_server(uri):
        return None
    try:
        ask(uri, "/health")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"MLflow's server {masked(uri)} cannot be reached: {clean(str(error))}"
    return None


def _asked(question, *given):
    """Ask MLflow; whatever it cannot answer is absent."""
    from mlflow.exceptions import MlflowException

    try:
        return question(*given)
    except (MlflowException, OSError) as error:
        said = clean(str(error)).strip().splitlines()
        raise Absent(said[0] if said else type(error).__name__) from error


def _read(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _predictions(task: Task, rows: list[dict[str, str]], run_id: str | None) -> TaskPredictions:
    column = "probability" if task.kind == "binary" else "prediction"
    try:
        labels, values = _numbers(rows, "label"), _numbers(rows, column)
        if task.kind == "binary":
            values = _on_its_side(values, _numbers(rows, "prediction"))
        return TaskPredictions(
            task=task.name,
            ids=[cell_text(row["id"]) for row in rows],
            texts=[tuple(cell_text(row[name]) for name in task.text_columns) for row in rows],
            labels=labels,
            outputs=np.full((len(rows), task.outputs), np.nan, np.float32),
            values=values,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Absent(f"run {run_id}: predictions/dev-{task.name}.csv: bad column {error}") from None


def _numbers(rows: list[dict[str, str]], column: str) -> np.ndarray:
    return np.array([row[column] for row in rows], np.float32)


def _on_its_side(chances: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Keep a probability on its class' side of one half, onto which six digits may round it."""
    above = np.nextafter(np.float32(0.5), np.float32(1))
    return np.where(classes == 1, np.maximum(chances, above), np.minimum(chances, 0.5))


def text_of(row: Mapping[str, str], task: str) -> tuple[str, ...]:
    """Return the one or two sentences of a row of `Runs.worst`."""
    return tuple(cell_text(row[name]) for name in get_task(task).text_columns)
