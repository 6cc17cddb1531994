"""What a batch minimises: outputs, their loss, and how far two outputs are apart."""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

from ..model.dropout import Dropout
from ..multitask import MultiTaskModel, task_loss
from ..packing.pack import PackedBatch
from ..tasks.rows import Rows, row_divergence, row_loss
from ..tasks.task import Task


class Objective(Protocol):
    """Of one batch, whose embeddings are given."""

    def outputs(self, embedded: Tensor, dropout: Dropout | None) -> Tensor:
        """Return the raw outputs for embeddings [T, H], one row a sequence."""

    def loss(self, outputs: Tensor) -> Tensor:
        """Return the mean loss."""

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        """Return how far two outputs are apart, the mean over sequences; see :func:`divergence`."""


class TaskObjective:
    """A batch of one task.

    Args:
        labels: float32 [S].
    """

    def __init__(
        self, model: MultiTaskModel, batch: PackedBatch, task: Task, labels: Tensor
    ) -> None:
        self._model, self._batch, self._task, self._labels = model, batch, task, labels

    def outputs(self, embedded: Tensor, dropout: Dropout | None) -> Tensor:
        return self._model.outputs(embedded, self._batch, self._task, dropout=dropout)

    def loss(self, outputs: Tensor) -> Tensor:
        return task_loss(self._task, outputs, self._labels)

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        return divergence(self._task, outputs, others)


class RowObjective:
    """A batch whose rows say what they are of: the same operations for every task."""

    def __init__(self, model: MultiTaskModel, batch: PackedBatch, rows: Rows) -> None:
        self._model, self._batch, self._rows = model, batch, rows

    def outputs(self, embedded: Tensor, dropout: Dropout | None) -> Tensor:
        return self._model.all_outputs(embedded, self._batch, dropout)

    def loss(self, outputs: Tensor) -> Tensor:
        return row_loss(outputs, self._rows)

    def divergence(self, outputs: Tensor, others: Tensor) -> Tensor:
        return row_divergence(outputs, others, self._rows)


def divergence(task: Task, outputs: Tensor, others: Tensor) -> Tensor:
    """Return how far two outputs of a task's head are apart, the mean over sequences.

    Symmetrised Kullback-Leibler divergence between the class distributions (equation 10), between
    Bernoulli distributions where there is one logit, and squared error for a regression.

    Args:
        outputs, others: [S, task.outputs], raw.
    """
    if task.kind == "regression":
        return F.mse_loss(outputs[:, 0], others[:, 0])
    if task.kind == "binary":
        # KL(p||q) + KL(q||p) of two Bernoullis is the product of the differences of
        # probabilities and logits.
        p, q = outputs[:, 0], others[:, 0]
        return ((p.sigmoid() - q.sigmoid()) * (p - q)).mean()
    p, q = outputs.log_softmax(1), others.log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean()
