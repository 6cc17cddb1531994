"""What changes from step to step on a device: in one buffer, sent in one copy."""

from __future__ import annotations

import numpy as np
import torch

from ..packing.buckets import Bucket
from ..packing.pack import PackedBatch, Ragged, Span
from ..packing.ragged import sendable
from ..tasks.rows import Rows, RowTasks
from ..tasks.task import Task


class StepInputs:
    """The inputs of all steps of one bucket; each is written over the one before.

    Args:
        tasks: that a batch may be of.

    Attributes:
        lr: float32 []. active: float32 [K], 1 where the batch has examples of a task.
        rows: what is wanted of each sequence; of filler, nothing.
    """

    def __init__(self, bucket: Bucket, tasks: RowTasks, device: torch.device) -> None:
        self._bucket, self._tasks, self._device = bucket, tasks, device
        rows, tokens = bucket.sequences, bucket.tokens
        # Of int64 first: they begin where an int64 may.
        sizes = [2 * rows * tasks.choices, 2 * rows, *3 * [rows], 1, len(tasks.tasks)]
        sizes += [rows + 1, *3 * [tokens]]
        self._words = torch.zeros(sum(sizes), dtype=torch.int32, device=device)
        columns, classes, *parts = self._words.split(sizes)
        values, class_weights, value_weights, lr, self.active = (
            part.view(torch.float32) for part in parts[:5]
        )
        self._offsets, self._token_ids, self._segments, self._positions = parts[5:]
        columns, classes = columns.view(torch.int64), classes.view(torch.int64)
        self._counted = torch.arange(rows + 1, dtype=torch.int32, device=device)
        self.lr = lr[0]
        self.rows = Rows(columns.view(rows, -1), classes, values, class_weights, value_weights)

    def batch(self, task: str) -> PackedBatch:
        """Return the inputs as a batch of a task; its filler counts as sequences."""
        tokens, sequences = self._bucket.tokens, self._bucket.sequences
        blocks = Ragged(self._offsets, sequences, self._bucket.longest, self._counted)
        return PackedBatch(
            self._token_ids, self._segments, self._positions,
            cls_positions=self._offsets[:-1], tokens=tokens, blocks=blocks,
            order=np.arange(sequences), spans=(Span(task, 0, tokens, sequences, blocks),),
        )  # fmt: skip

    def fill(self, batch: PackedBatch, labels: np.ndarray, task: Task, lr: float) -> None:
        """Send a batch of a task, packed with ``ragged``, and its labels, float32 [sequences].

        The device is not waited for.
        """
        words = torch.from_numpy(self._packed(batch, labels, task, lr))
        self._words.copy_(sendable(words, self._device), non_blocking=True)

    def _packed(self, batch: PackedBatch, labels: np.ndarray, task: Task, lr: float) -> np.ndarray:
        filler = self._bucket.filler(batch.tokens, len(labels))
        active = [each == task for each in self._tasks.tasks]
        ends = batch.tokens + np.cumsum(filler)
        more = int(filler.sum())
        within = np.arange(batch.tokens, batch.tokens + more) - np.repeat(ends - filler, filler)
        parts = (
            *self._tasks.rows(task, labels, len(filler)),
            np.array([lr, *active], dtype=np.float32),
            _words(batch.cls_positions.numpy(), [batch.tokens], ends),
            _words(np.pad(batch.token_ids.numpy(), (0, more))),
            _words(np.pad(batch.segments.numpy(), (0, more))),
            _words(batch.positions.numpy(), within),
        )
        return np.concatenate([part.ravel().view(np.int32) for part in parts])


def _words(*parts) -> np.ndarray:
    return np.concatenate(parts, dtype=np.int32, casting="unsafe")
