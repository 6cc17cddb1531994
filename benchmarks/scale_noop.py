"""Trials that train nothing, recorded like any: for `scale.py`.

`NoopExecutor` answers at once with what a worker would say. What it says is made up from the
trial's values and number, so that a study has a shape; what the dispatcher does with it is real.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minbert.evaluation.intervals import Estimate
from mtl.executors.base import Executor
from mtl.executors.resources import Folders, Resources
from mtl.tracking.outbox import Outbox
from mtl.worker.messages import Evaluated, Event, Finished, Stopped, TrialJob

PICKED = (0, 50)
"""Trials with predictions, as `mtl study compare` reads them: the baseline and the best one."""
_TASKS = ("sst_accuracy", "para_accuracy", "sts_pearson")
_ERRORS = ("sts_mse", "sts_mae", "sts_rmse")
STEPS = 100


class NoopExecutor(Executor):
    """Ends every trial at once: one evaluation, its points in the run's outbox, and the end."""

    def __init__(self, resources: Resources, folders: Folders) -> None:
        self.width, self.workers = resources.width(1), resources.workers(1)
        self._said: deque[Event] = deque()
        self._busy: dict[int, TrialJob] = {}

    @property
    def free(self) -> int:
        return self.workers - len(self._busy)

    def submit(self, job: TrialJob) -> None:
        self._busy[job.number] = job
        scores = made_up(job.number, job.config)
        box = Outbox(Path(job.outbox))
        box.append("metrics", step=STEPS, values=_points(scores))
        if job.number in PICKED:
            _predict(box, job.number)
        self._said.append(Evaluated(job.number, 1, STEPS, scores, scores["score"]))

    def advance(self, number: int) -> None:
        job = self._busy.pop(number)
        self._said.append(_finished(job, made_up(job.number, job.config)))

    def cancel(self, number: int, prune: bool = False) -> None:
        if self._busy.pop(number, None) is not None and not prune:
            self._said.append(Stopped(number))

    def events(self, timeout: float) -> list[Event]:
        said = list(self._said)
        self._said.clear()
        return said

    def keep_alive(self) -> None:
        pass

    def close(self) -> None:
        self._busy.clear()


def made_up(number: int, config: Mapping[str, Any]) -> dict[str, float]:
    """Return scores of a trial that have a maximum somewhere in the search space, with noise."""
    noise = random.Random(number).gauss(0, 0.02)
    alpha, rank, rate = (float(config[key]) for key in ("lora.alpha", "lora.rank", "train.lr"))
    far = abs(math.log(alpha / 8)) + abs(math.log((rank + 1) / 9)) + abs(math.log10(rate / 2e-4))
    level = min(max(0.8 - 0.08 * far + noise, 0.1), 0.95)
    if number == PICKED[1]:
        level = 0.97
    scores = {name: level * share for name, share in zip(_TASKS, (0.8, 1.0, 0.98), strict=True)}
    scores["score"] = (scores["sst_accuracy"] + scores["para_accuracy"]
                       + (scores["sts_pearson"] + 1) / 2) / 3  # fmt: skip
    return scores


def estimates(scores: dict[str, float]) -> dict[str, Estimate]:
    """Return as many intervals as a real trial has."""
    given = {**scores, **dict.fromkeys(_ERRORS, 0.8)}
    return {
        name: Estimate(value, value + 1e-4, 0.009, value - 0.018, value + 0.017)
        for name, value in given.items()
    }


def evaluation(scores: dict[str, float], predictions: dict | None = None):
    """Return the report of an evaluation."""
    from minbert.training.reports import EpochReport

    return EpochReport(
        epoch=1, step=STEPS, scores=scores, best_score=scores["score"], best_epoch=1, is_best=True,
        losses={"sst": 1.0, "para": 1.0, "sts": 1.0}, predictions=predictions or {}, lr=1e-4,
        tokens_per_second=5e3, train_seconds=6.0, eval_seconds=1.0, eval_examples=900,
        total_steps=STEPS,
    )  # fmt: skip


def _finished(job: TrialJob, scores: dict[str, float]) -> Finished:
    rank = int(job.config["lora.rank"])
    sure = {name: asdict(given) for name, given in estimates(scores).items()}
    return Finished(
        job.number, scores["score"], scores, sure, best_epoch=1,
        minutes=0.2 + 0.01 * rank + 1e-4 * (job.number % 97), trainable=903 + 4487 * rank,
        checkpoint_bytes=40_000 + 9_000 * rank, model_bytes=20_000 + 4_000 * rank,
    )  # fmt: skip


def _points(scores: dict[str, float]) -> dict[str, float]:
    """The points that a worker records at an evaluation and at the end."""
    points = {f"dev/{name}": value for name, value in scores.items()}
    points |= {f"final/{name}": value for name, value in scores.items()}
    points |= {f"train/loss_{task}": 1.0 for task in ("sst", "para", "sts")}
    points |= {"final/score_low": scores["score"] - 0.02, "final/score_high": scores["score"]}
    return points | {
        "best/score": scores["score"], "train/loss": 1.0, "train/lr": 1e-4, "train/epoch": 1.0,
        "train/tokens_per_second": 5e3, "train/seconds": 6.0, "dev/seconds": 1.0,
        "final/epoch": 1.0, "parameters/trainable": 9e3, "parameters/total": 1e5,
    }  # fmt: skip


def _predict(box: Outbox, number: int) -> None:
    from mtl.artifacts.training import write_report

    box.files.mkdir(parents=True, exist_ok=True)
    scores = {"score": 0.5}
    write_report(evaluation(scores, _predictions(number)), box.files)
    box.append("files", folder=box.files.name)


def _predictions(number: int) -> dict:
    """Return predictions on 300 examples a task, about two thirds of them right."""
    import numpy as np

    from minbert.evaluation.predictions import TaskPredictions
    from minbert.tasks.builtin import TASKS

    found = {}
    for task in TASKS:
        labels = np.random.default_rng(1).integers(0, max(task.outputs, 2), 300).astype(float)
        noise = np.random.default_rng(number).normal(0, 0.7, (300, task.outputs))
        if task.outputs > 1:
            outputs = noise + np.eye(task.outputs)[labels.astype(int)]
            values = outputs.argmax(axis=1).astype(float)
        else:
            outputs = noise + (2 * labels[:, None] - 1 if task.kind == "binary" else 2.5)
            values = 1 / (1 + np.exp(-outputs[:, 0])) if task.kind == "binary" else outputs[:, 0]
        texts = [tuple(f"text {i}" for _ in task.text_columns) for i in range(300)]
        found[task.name] = TaskPredictions(
            task=task.name, ids=[f"{task.name}-{i}" for i in range(300)], texts=texts,
            labels=labels, values=values, outputs=outputs,
        )  # fmt: skip
    return found
