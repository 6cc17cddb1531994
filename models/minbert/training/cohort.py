"""Trainings that share passes over one frozen backbone.

Each of them is a training of its own, in a thread of its own: schedule, data order, dropout,
optimizer, evaluation, checkpoints. Only the forward and backward passes of their steps are taken
together: whoever hands in the last batch computes for all. So trainings come and go between any
two steps, and one that evaluates, writes or waits for somebody keeps none from going on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..adapters.joined import JoinedLora
from ..config import Config
from ..device import pick_device
from ..model.joined_dropout import JoinedDropout
from ..model.product_weights import with_weights
from ..multitask import task_loss
from ..packing.joined import Joined
from ..packing.pack import PackedBatch, join
from ..tasks.builtin import get_task
from ..tasks.task import Task
from .build import Setup
from .host_step import HostSteps


class Cohort:
    """Trainings of one process that share passes; what it is given to may run in threads.

    Args:
        places: how many there may be at a time.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._changed = threading.Condition()
        self._training: set[CohortSteps] = set()
        self._handed_in: dict[CohortSteps, list[Batch]] = {}
        self._results: dict[CohortSteps, Result] = {}
        self._computing = False

    def takes(self, config: Config) -> str | None:
        """Say in a line why a configuration trains alone; None where it can share passes."""
        if config.train.mode != "last-linear-layer":
            return "train.mode: a backbone that trains is shared with nobody"
        if config.smart.on:
            return "smart.lambda: SMART takes several passes of its own"
        if config.pals.kind != "none":
            return "pals.kind: adaptation layers are other layers for each training"
        if pick_device(config.train.device).type != "cpu":
            return "train.device: on a GPU trainings do not share passes yet"
        return None

    def join(self, setup: Setup) -> CohortSteps:
        """Return the steps of a training that shares its passes; it takes part from its first."""
        return CohortSteps(setup, self)

    # ---- what its members' threads do

    def compute(self, member: CohortSteps, batches: list[Batch]) -> list[float]:
        """Compute a step's gradients, together with the others'; return the losses of its batches.

        Raises:
            Exception: whatever the pass raised, in every training that took part in it.
        """
        with self._changed:
            self._training.add(member)
            self._handed_in[member] = batches
            self._changed.notify_all()
            while member not in self._results:
                if self._computing or len(self._handed_in) < len(self._training):
                    self._changed.wait()
                else:
                    self._compute_for_all()
            result = self._results.pop(member)
        if result.error is not None:
            raise result.error
        return result.losses

    def step_aside(self, member: CohortSteps) -> None:
        """Do not wait for a training until its next step."""
        with self._changed:
            self._training.discard(member)
            self._changed.notify_all()

    def _compute_for_all(self) -> None:
        """Take the passes of what was handed in; the lock is held, but not meanwhile."""
        given, self._handed_in, self._computing = self._handed_in, {}, True
        self._changed.release()
        losses: dict[CohortSteps, list[float]] = {member: [] for member in given}
        error: Exception | None = None
        try:
            for round_ in zip_longest(*given.values()):
                each = zip(given, round_, strict=True)
                handed_in = [(member, batch) for member, batch in each if batch is not None]
                for taken in _by_weights(handed_in):
                    for (member, _), loss in zip(taken, _pass(taken), strict=True):
                        losses[member].append(loss)
        except Exception as raised:  # noqa: BLE001  (every training that took part gets it)
            error = raised
        finally:
            self._changed.acquire()
            self._computing = False
            self._results |= {member: Result(losses[member], error) for member in given}
            self._changed.notify_all()


class Batch(NamedTuple):
    """What a training hands in: a batch, or a part of one."""

    packed: PackedBatch  # without filler
    task: Task
    labels: Tensor  # float32 [sequences]
    share: float  # of the step's batch


class Result(NamedTuple):
    """What a training gets back."""

    losses: list[float]
    error: Exception | None


class CohortSteps(HostSteps):
    """The steps of a training in a cohort."""

    def __init__(self, setup: Setup, cohort: Cohort) -> None:
        super().__init__(setup)
        self._cohort = cohort

    def _gradients(self, task_name: str, drawn: np.ndarray) -> tuple[float, int]:
        dataset, batches = self.setup.corpus.train[task_name], []
        for indices in self._parts(task_name, drawn):
            packed, labels = dataset.batch(indices, level=self._fill)
            share = len(indices) / len(drawn)
            wanted = torch.from_numpy(labels)
            batches.append(Batch(packed, get_task(task_name), wanted, share))
        losses = self._cohort.compute(self, batches)
        return sum(losses), sum(batch.packed.tokens for batch in batches)

    def catch_up(self) -> None:
        self._cohort.step_aside(self)

    def close(self) -> None:
        self._cohort.step_aside(self)


def _by_weights(
    handed_in: list[tuple[CohortSteps, Batch]],
) -> Iterable[list[tuple[CohortSteps, Batch]]]:
    """Part trainings on other frozen weights from each other: they share no pass."""
    parts: dict[tuple[str, torch.dtype], list[tuple[CohortSteps, Batch]]] = {}
    for member, batch in handed_in:
        key = member.setup.config.backbone, member.setup.dtype
        parts.setdefault(key, []).append((member, batch))
    return parts.values()


def _pass(taken: list[tuple[CohortSteps, Batch]]) -> list[float]:
    """Take one forward and backward pass for several trainings; return their losses.

    Frozen weights are those of the first: they are everybody's.
    """
    setups = [member.setup for member, _ in taken]
    batch = join([given.packed for _, given in taken])
    joined = batch.blocks
    assert isinstance(joined, Joined)
    first = taken[0][0]

    def pooled() -> Tensor:
        encoder = first.setup.model.encoder
        adapter = JoinedLora([setup.model.lora for setup in setups], joined)
        dropout = JoinedDropout([setup.dropout for setup in setups], joined)
        embedded = encoder.embeddings(batch, dropout)
        return encoder.pool_cls(encoder.encode(embedded, batch, adapter, dropout, cls_only=True))

    rows = joined.cut(with_weights(first.setup.model, first.weights.frozen, pooled))
    each = zip(setups, taken, rows, strict=True)
    losses = [_loss(setup, given, own) for setup, (_, given), own in each]
    torch.stack(losses).sum().backward()
    return [loss.item() for loss in losses]


def _loss(setup: Setup, given: Batch, pooled: Tensor) -> Tensor:
    """Return a batch's share of its training's loss, from what its head sees, [S, H]."""
    model, task = setup.model, given.task
    pooled = setup.dropout.apply(pooled, model.head_dropout)
    outputs = model.adapter.head(task.name, model.head(task.name), pooled).float()
    return task_loss(task, outputs, given.labels) * given.share
