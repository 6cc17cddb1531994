"""Dropout from a random stream of one's own, whose state fits in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..common.streams import derive_seed
from .dropout_mask import DropoutMask, add_masked, masked


class Dropout:
    """What one random stream drops: a forward pass that is given a ``Dropout`` trains.

    One that is given none evaluates. The gaps between dropped elements are drawn, not a number for
    each element: they are geometric, the rounded down values of an exponential distribution
    (Devroye 1986, chapter X.2). That is for a CPU; for a GPU see :class:`DeviceDropout`.
    """

    def __init__(self, seed: int) -> None:
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
        _check_size(state, self.state())
        words = state.numpy().copy().view(np.uint64)
        self._bits.state = {
            "bit_generator": "SFC64", "state": {"state": words}, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip


class DeviceDropout(Dropout):
    """Dropout by the kernels of a device, from the device's own generator.

    That generator is one for all of a process, as torch's attention draws from no other.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = _own_generator(device)
        self._generator.manual_seed(derive_seed(seed, "dropout"))

    def apply(self, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        return F.dropout(x, rate)

    def add(self, residual: Tensor, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        return residual + F.dropout(x, rate)

    def state(self) -> Tensor:
        return self._generator.get_state()

    def load_state(self, state: Tensor) -> None:
        _check_size(state, self.state())
        self._generator.set_state(state.cpu())


def _check_size(state: Tensor, own: Tensor) -> None:
    if len(state) != len(own):
        raise ValueError(f"a state of {len(state)} bytes; dropout's has {len(own)} on this device")


def _own_generator(device: torch.device) -> torch.Generator:
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]


def make_dropout(seed: int, device: torch.device) -> Dropout:
    """Return the dropout of a training on ``device``."""
    return Dropout(seed) if device.type == "cpu" else DeviceDropout(seed, device)


def keeping(rate: float) -> float:
    """Return the factor of what dropout at ``rate`` keeps: the mean stays."""
    return 1 / (1 - rate)
