"""What a training asks of its steps, wherever they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ..model.product_weights import ProductWeights


class Result(NamedTuple):
    """What came of a step: its mean loss, not finite where it was left out, and its tokens."""

    loss: float
    tokens: int


class Steps(Protocol):
    """Takes the steps of one training.

    Attributes:
        weights: what products run on.
    """

    weights: ProductWeights

    def launch(self, task_name: str, drawn: np.ndarray, lr: float) -> None:
        """Train on some examples of a task, by their indices, int64 [at most the batch's size].

        A step whose loss is not finite changes no weight, and none after it does.
        """

    def finished(self, wait: bool = False) -> list[Result]:
        """Return what came of the steps since the last call, in order.

        Args:
            wait: of all of them; else only of those that are known to be over.
        """

    def notices(self) -> list[str]:
        """Return what is to be said of how steps are taken, in a line each, once."""

    def catch_up(self) -> None:
        """Bring every weight to the last step: before they are read."""

    def close(self) -> None:
        """Take no more: others need not wait for them."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizers' state, for a checkpoint."""

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`tensors` returned, of whichever kind of steps."""
