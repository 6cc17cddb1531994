"""The paper's prediction files, from a model folder."""

from __future__ import annotations

import os
from pathlib import Path

from ..common.csv_cells import plain_cell
from ..data.datasets import DatasetSource
from ..device import pick_device
from ..errors import InputError
from ..evaluation.evaluate import predict_dataset, task_predictions
from ..evaluation.predictions import TaskPredictions
from ..tasks.builtin import TASKS
from ..tasks.task import Task
from ..training.build import config_dtype
from .model_folder import load_model


def predict_files(model_dir: Path, data_dir: str, out_dir: Path, cache_dir: Path) -> list[Path]:
    """Predict the dev and test files of every task, and write the course project's six files.

    Each has the header ``id \\t Predicted_Sentiment`` (``Predicted_Is_Paraphrase``,
    ``Predicted_Similiary``) and a line ``id , prediction`` for every row of the input file, also
    for rows that could not be used in training.

    Returns:
        The files that were written.

    Raises:
        InputError: the model folder, a data file or the output folder cannot be used.
    """
    config, model = load_model(model_dir, cache_dir)
    device = pick_device(config.train.device)
    dtype = config_dtype(config, device)
    source = DatasetSource(data_dir, config.backbone, cache_dir)
    wanted = [(t, split, f) for t in TASKS for split, f in (("dev", t.dev), ("test", t.test))]
    datasets = [source.open_rows(task, file) for task, _, file in wanted]  # all, before any work
    model.to(device)
    written = []
    for (task, split, _), dataset in zip(wanted, datasets, strict=True):
        outputs = predict_dataset(model, dataset, device, dtype)
        text = _file_text(task, task_predictions(dataset, outputs))
        written.append(_write(Path(out_dir) / f"{task.name}-{split}-output.csv", text))
    return written


def _file_text(task: Task, predictions: TaskPredictions) -> str:
    values = predictions.values if task.kind == "regression" else predictions.classes
    lines = [f"id \t {task.prediction_header} "]
    # An id is what the data file says: "=1+1" would be a formula to a spreadsheet.
    ids = map(plain_cell, predictions.ids)
    lines += [f"{i} , {v}" for i, v in zip(ids, values.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def _write(file: Path, text: str) -> Path:
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8")
        os.replace(part, file)
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from None
    return file
