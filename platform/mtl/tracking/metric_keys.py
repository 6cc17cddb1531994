"""The names of metrics in MLflow: what a recorder writes, and what columns and curves read."""

from __future__ import annotations

from minbert.tasks.builtin import TASK_METRICS

BATCH_LOSS = "train/batch_loss"
LOSS = "train/loss"
LR = "train/lr"
TOKENS_PER_SECOND = "train/tokens_per_second"
EPOCH = "train/epoch"
TRAIN_SECONDS = "train/seconds"
EVAL_SECONDS = "dev/seconds"
BEST_SCORE = "best/score"
TRAINABLE, TOTAL = "parameters/trainable", "parameters/total"

SCORES = ("score", *TASK_METRICS)
"""What an evaluation gives, the score first: names behind ``dev/`` and ``final/``."""


def dev(name: str) -> str:
    """Name what an evaluation on the dev sets gave: ``dev/score``, by training step."""
    return f"dev/{name}"


def final(name: str) -> str:
    """Name what the best epoch has on the whole dev sets: ``final/score``, once a run."""
    return f"final/{name}"


def task_loss(task: str) -> str:
    """Name a task's mean training loss since the evaluation before: ``train/loss_sst``."""
    return f"{LOSS}_{task}"
