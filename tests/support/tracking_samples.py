"""Reports as a training makes them, small and fixed, for the tests of tracking and reports."""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from minbert.evaluation.predictions import TaskPredictions
from minbert.training.reports import EpochReport, StepReport
from mtl.tracking.store import _create as make_store, load_mlflow

NASTY = '=HYPERLINK("http://x") <script>alert(1)</script>'


def predictions(task: str, count: int = 40, seed: int = 0) -> TaskPredictions:
    """Predictions of one task, about two thirds of them right."""
    random = np.random.default_rng(seed)
    if task == "sts":
        labels = random.uniform(0, 5, count).round(1)
        outputs = (labels + random.normal(0, 0.8, count))[:, None]
        values = outputs[:, 0]
    elif task == "para":
        labels = random.integers(0, 2, count).astype(float)
        outputs = ((2 * labels - 1) * 1.5 + random.normal(0, 1.6, count))[:, None]
        values = 1 / (1 + np.exp(-outputs[:, 0]))
    else:
        labels = random.integers(0, 5, count).astype(float)
        outputs = random.normal(0, 1, (count, 5))
        outputs[np.arange(count), labels.astype(int)] += 1.6
        values = outputs.argmax(axis=1).astype(float)
    pair = task != "sst"
    texts = [
        (NASTY, "a second, plain one") if i == 0 and pair else (f"text {i} of {task}",) * (1 + pair)
        for i in range(count)
    ]
    if not pair:
        texts[0] = (NASTY,)
    ids = [f"{task}-{i}" for i in range(count)]
    return TaskPredictions(
        task=task, ids=ids, texts=texts, labels=labels, values=values, outputs=outputs
    )


def step_report(step: int) -> StepReport:
    """The report of a step; the same step has the same loss."""
    task = ("sst", "para", "sts")[step % 3]
    return StepReport(
        step=step, task=task, loss=2 / step, lr=1e-3 * step, tokens=100, seconds=0.5
    )


def epoch_report(epoch: int, steps: int = 25, count: int = 40) -> EpochReport:
    """The report of an evaluation; scores rise with the epochs."""
    scores = {"sst_accuracy": 0.3 + 0.02 * epoch, "para_accuracy": 0.6, "sts_pearson": 0.4}
    scores["score"] = (scores["sst_accuracy"] + 0.6 + 0.7) / 3
    return EpochReport(
        epoch=epoch,
        step=epoch * steps,
        scores=scores,
        best_score=scores["score"],
        best_epoch=epoch,
        is_best=True,
        losses={"sst": 1.5 / epoch, "para": 0.6 / epoch, "sts": 0.9 / epoch},
        predictions={task: predictions(task, count, epoch) for task in ("sst", "para", "sts")},
        lr=1e-3,
        tokens_per_second=5000.0,
        train_seconds=2.0,
        eval_seconds=0.5,
        eval_examples=3 * count,
        total_steps=100,
    )


def new_store(file: Path) -> str:
    """Make an empty MLflow store and return its URI; its tables are made once a process."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    part.write_bytes(_empty_store())
    part.replace(file)  # who else looks for it sees nothing, or all of it
    return f"sqlite:///{file}"


@cache
def _empty_store() -> bytes:
    load_mlflow()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        make_store(file)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        return file.read_bytes()
