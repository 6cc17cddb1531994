"""Which task the next batch comes from, and which of its examples.

The schedule and the draws are plain counters over seeded streams: their whole state is a few
numbers, so a training can stop after any step and go on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..common.streams import derive_seed
from ..config import ScheduleConfig


class Draws:
    """Batches of one dataset, drawn without replacement and reshuffled when it is used up.

    The last batch of a pass may be smaller, so that each pass holds every example exactly once.
    """

    def __init__(self, size: int, batch_size: int, seed: int, name: str) -> None:
        self._size, self._batch, self._seed, self._name = size, batch_size, seed, name
        self._cursor = 0
        self._pass = 0
        self._order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        seed = derive_seed(self._seed, "order", self._name, self._pass)
        return np.random.Generator(np.random.PCG64(seed)).permutation(self._size)

    def next(self) -> np.ndarray:
        """Return the indices of the next batch, int64 [at most batch_size]."""
        if self._cursor >= self._size:
            self._pass += 1
            self._cursor = 0
            self._order = self._shuffled()
        indices = self._order[self._cursor : self._cursor + self._batch]
        self._cursor += len(indices)
        return indices

    def state(self) -> dict:
        """Return where the draws stand, for a checkpoint."""
        return {"pass": self._pass, "cursor": self._cursor}

    def load_state(self, state: dict) -> None:
        """Go on from a state that :meth:`state` returned."""
        self._pass, self._cursor = state["pass"], state["cursor"]
        self._order = self._shuffled()


class Schedule:
    """The choice of tasks over a training (the paper, section 4.1).

    Args:
        config: policy, per batch or per epoch, and the annealing.
        sizes: number of training examples of each task; those of ``config.tasks`` count.
        epochs, steps_per_epoch, batch_size: of the training; ``steps_per_epoch`` 0 means as many
            batches as cover the data: of the epoch's task, or of all tasks.
        seed: seed of the training.
    """

    def __init__(
        self,
        config: ScheduleConfig,
        sizes: Mapping[str, int],
        *,
        epochs: int,
        steps_per_epoch: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self._config = config
        self._names = tuple(name for name in sizes if name in config.tasks)
        self._sizes = np.array([sizes[name] for name in self._names], dtype=np.float64)
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._batch = batch_size
        self._seed = seed

    def probabilities(self, epoch: int) -> dict[str, float]:
        """Return the chance of each task in an epoch, counted from 1: p_i ~ N_i^alpha.

        Annealed: alpha = 1 - c (e - 1)/(E - 1) (equation 1). Proportional, square-root and random
        sampling hold alpha at 1, 1/2 and 0.
        """
        weights = self._sizes ** self._exponent(epoch)
        return dict(zip(self._names, (weights / weights.sum()).tolist(), strict=True))

    def _exponent(self, epoch: int) -> float:
        if self._config.policy == "annealed":
            progress = (epoch - 1) / (self._epochs - 1) if self._epochs > 1 else 0.0
            return 1 - self._config.anneal * progress
        return {"proportional": 1.0, "square-root": 0.5}.get(self._config.policy, 0.0)

    def epoch(self, epoch: int) -> list[str]:
        """Return the task of each step of an epoch, counted from 1.

        An epoch's tasks depend on the seed and the epoch only, not on what came before.
        """
        if self._config.per == "epoch":
            task = self._names[self._turn(epoch, 0, 1)[0]]
            return [task] * (self._steps or self._batches(self._names.index(task)))
        steps = self._steps or sum(map(self._batches, range(len(self._names))))
        return [self._names[turn] for turn in self._turn(epoch, (epoch - 1) * steps, steps)]

    def _turn(self, epoch: int, first: int, count: int) -> list[int]:
        """Return ``count`` choices of a task in an epoch; ``first`` steps came before it."""
        if self._config.policy == "round-robin":
            start = epoch - 1 if self._config.per == "epoch" else first
            return [(start + step) % len(self._names) for step in range(count)]
        stream = np.random.Generator(np.random.PCG64(derive_seed(self._seed, "schedule", epoch)))
        chances = list(self.probabilities(epoch).values())
        return stream.choice(len(self._names), size=count, p=chances).tolist()

    def _batches(self, index: int) -> int:
        return math.ceil(self._sizes[index] / self._batch)

    def total_steps(self) -> int:
        """Return how many steps the whole training has."""
        if self._config.per == "batch":
            return self._epochs * len(self.epoch(1))
        return sum(len(self.epoch(epoch)) for epoch in range(1, self._epochs + 1))
