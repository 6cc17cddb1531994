"""Dropout from a random stream of one's own, whose state fits in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..common.streams import derive_seed
from .dropout_mask import DropoutMask, add_masked, masked


class Dropout:
    """What one random stream drops: a forward pass that is given a ``Dropout`` trains.

    One that is given none evaluates. The gaps between dropped elements are drawn, not a number for
    each element: they are geometric, the rounded down values of an exponential distribution
    (Devroye 1986, chapter X.2). That is for a CPU; for a GPU see
    :mod:`minbert.model.device_dropout`.
    """

    def __init__(self, seed: int) -> None:
        self.begin(seed)

    def begin(self, seed: int) -> None:
        """Begin the stream of a seed."""
        # From NumPy: torch's Mersenne Twister takes several times as long a word.
        self._bits = np.random.SFC64(derive_seed(seed, "dropout"))
        self._draw = np.random.Generator(self._bits)

    def apply(self, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        """Return ``x`` with elements zeroed at ``rate`` and the others scaled up; any shape.

        Args:
            rows: how many rows count: nothing is drawn for those behind, and none is dropped there.
        """
        return x if rate == 0 else masked(x, self._draw_rows(x, rate, rows), keeping(rate))

    def add(self, residual: Tensor, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        """Return ``residual`` plus what :meth:`apply` makes of ``x``; it keeps its precision."""
        if rate == 0:
            return residual + x
        return add_masked(residual, x, self._draw_rows(x, rate, rows), keeping(rate))

    def draw_ahead(self, additions: int, like: Tensor, rate: float) -> None:
        """Expect as many calls of :meth:`add` on tensors like one, or of fewer rows, at a rate.

        A device draws for all of them at once.
        """

    def repeatable(self) -> Callable[[], None]:
        """Return what begins a part of the stream: each call, the same part from its beginning.

        Whoever draws after each of its calls draws the same, and as much each time. It holds for
        one step.
        """
        begins: list[Tensor] = []

        def begin() -> None:
            if begins:
                self.load_state(begins[0])
            else:
                begins.append(self.state())

        return begin

    def end_step(self) -> None:
        """Go on with the stream after the parts that were repeated."""

    def generators(self) -> list[torch.Generator]:
        """Return the generators of a GPU that are drawn from, beside its own."""
        return []

    def renew(self) -> None:
        """Go on from where the generators stand, in new ones: a graph that could not be captured
        has left its marks on the old."""

    def _draw_rows(self, x: Tensor, rate: float, rows: int | None) -> DropoutMask:
        return self.draw(x.shape if rows is None else (rows, *x.shape[1:]), rate)

    def draw(self, shape: Sequence[int], rate: float) -> DropoutMask:
        """Draw which elements of a tensor dropout zeroes; 0 < rate < 1."""
        count = math.prod(shape)
        scale = min(-1 / math.log1p(-rate), 1e15)  # of the exponential distribution; fits int64
        found, last = [], -1
        while last < count:
            expected = (count - last) * rate
            gaps = self._draw.standard_exponential(int(expected + 4 * math.sqrt(expected)) + 8)
            gaps *= scale
            at = gaps.astype(np.int64)
            at += 1
            at[0] += last
            found.append(np.cumsum(at, out=at))
            last = int(at[-1])
        at = found[0] if len(found) == 1 else np.concatenate(found)
        return DropoutMask(at[: np.searchsorted(at, count)])

    def state(self) -> Tensor:
        """Return the stream's state, uint8."""
        return torch.from_numpy(self._bits.state["state"]["state"].copy().view(np.uint8))

    def load_state(self, state: Tensor) -> None:
        """Go on from a state that :meth:`state` returned.

        Raises:
            ValueError: it is another kind of stream's.
        """
        check_size(state, self.state())
        words = state.numpy().copy().view(np.uint64)
        self._bits.state = {
            "bit_generator": "SFC64", "state": {"state": words}, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip


def check_size(state: Tensor, own: Tensor) -> None:
    if len(state) != len(own):
        raise ValueError(f"a state of {len(state)} bytes; dropout's has {len(own)} on this device")


def keeping(rate: float) -> float:
    """Return the factor of what dropout at ``rate`` keeps: the mean stays."""
    return 1 / (1 - rate)
