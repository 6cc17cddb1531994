"""Losses of a batch whose rows may be of any task: each row picks its own outputs and loss.

So a step is the same operations whichever task a batch is of, and however many tasks there are.

    S rows   K tasks   C choices: the most that a task has
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .task import Task

_BARRED = -1e30  # a logit that nobody chooses; not infinite: a difference of two is zero


class Rows(NamedTuple):
    """What is wanted of each row of a batch, and how much it counts.

    A row of filler counts nothing.
    """

    columns: Tensor  # int64 [S, C], which outputs a row chooses among; see `choices`
    classes: Tensor  # int64 [S], the one that is right; 0 where a value is wanted
    values: Tensor  # float32 [S], the value that is right, of the first choice
    class_weights: Tensor  # float32 [S], of a row's cross-entropy
    value_weights: Tensor  # float32 [S], of a row's squared error


class RowTasks:
    """The tasks that rows may be of.

    A binary task's one logit z stands against a logit of zero: their cross-entropy is the binary
    cross-entropy of z, and their symmetrised divergence that of two Bernoulli distributions.

    Args:
        tasks: in the order of their outputs, which lie side by side.

    Attributes:
        choices: C.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tuple(tasks)
        width = sum(task.outputs for task in tasks)
        zero, barred = width, width + 1  # columns behind the outputs
        columns, start = [], 0
        for task in tasks:
            own = list(range(start, start + task.outputs))
            columns.append([zero, *own] if task.kind == "binary" else own)
            start += task.outputs
        self.choices = max(map(len, columns))
        self._columns = np.array([own + [barred] * (self.choices - len(own)) for own in columns])

    def rows(self, task: Task, labels: np.ndarray, filler: int) -> tuple[np.ndarray, ...]:
        """Return, on the host, the :class:`Rows` of a batch of one task: the mean of its losses
        counts, and ``filler`` rows behind it do not.

        Args:
            labels: float32 [S - filler].
        """
        number, count = self.tasks.index(task), len(labels)
        weights = np.pad(np.full(count, 1 / count, dtype=np.float32), (0, filler))
        values = np.pad(labels, (0, filler)).astype(np.float32)
        nothing = np.zeros_like(weights)
        by_value = task.kind == "regression"
        return (
            np.tile(self._columns[number], (count + filler, 1)),
            (nothing if by_value else values).astype(np.int64),
            values,
            nothing if by_value else weights,
            weights if by_value else nothing,
        )


def row_loss(outputs: Tensor, rows: Rows) -> Tensor:
    """Return the sum of the rows' losses by their weights, as
    :func:`minbert.multitask.task_loss` has them.

    Args:
        outputs: float32, [S, of all tasks].
    """
    choices = _choices(outputs, rows)
    by_class = F.cross_entropy(choices, rows.classes, reduction="none")
    by_value = F.mse_loss(choices[:, 0], rows.values, reduction="none")
    return torch.dot(by_class, rows.class_weights) + torch.dot(by_value, rows.value_weights)


def row_divergence(outputs: Tensor, others: Tensor, rows: Rows) -> Tensor:
    """Return how far two outputs are apart, by the rows' weights, as
    :func:`minbert.training.objective.divergence` has it."""
    a, b = _choices(outputs, rows), _choices(others, rows)
    p, q = a.log_softmax(1), b.log_softmax(1)
    by_class = ((p.exp() - q.exp()) * (p - q)).sum(1)
    by_value = F.mse_loss(a[:, 0], b[:, 0], reduction="none")
    return torch.dot(by_class, rows.class_weights) + torch.dot(by_value, rows.value_weights)


def _choices(outputs: Tensor, rows: Rows) -> Tensor:
    """Return each row's logits, or its value in the first column, [S, C]."""
    behind = _behind(outputs.device, outputs.dtype).expand(len(outputs), 2)
    return torch.cat((outputs, behind), 1).gather(1, rows.columns)


@cache
def _behind(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor([0.0, _BARRED], device=device, dtype=dtype)
