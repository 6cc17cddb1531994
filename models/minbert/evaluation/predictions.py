"""What a model says of a dataset, joined with the rows that it says it of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..tasks.builtin import get_task


@dataclass(frozen=True, eq=False)
class TaskPredictions:
    """What the model says of one task's dev examples, in file order.

    Attributes:
        task: short name.
        ids: of each example. texts: its one or two sentences.
        labels: float32 [examples], on the task's scale.
        outputs: float32 [examples, outputs], the head's raw outputs.
        values: float32 [examples]: the class (sst), the probability of a paraphrase (para), the
            raw similarity (sts).
    """

    task: str
    ids: list[str]
    texts: list[tuple[str, ...]]
    labels: np.ndarray
    outputs: np.ndarray
    values: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The predicted class of each example, int64 [examples]; not for a regression."""
        kind = get_task(self.task).kind
        if kind == "regression":
            raise ValueError(f"{self.task} is a regression: it has no classes")
        return (self.values > 0.5 if kind == "binary" else self.values).astype(np.int64)
