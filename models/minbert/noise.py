"""Random streams: seeds derived by name, and dropout from a generator of one's own.

Each part of a training (heads, adapters, data order, schedule, dropout) draws from its own stream,
so that adding one does not move the others, and each stream's state fits in a checkpoint.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .dropout import Dropped, Mask, Places, add_dropout, dropout


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called ``names`` of the training seeded ``seed``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream called ``names``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


class Noise:
    """What one random stream drops: a forward pass that is given a ``Noise`` trains.

    One that is given none evaluates. On a CPU the gaps between dropped elements are drawn, not a
    number for each element: they are geometric, the rounded down values of an exponential
    distribution (Devroye 1986, chapter X.2). On a GPU it is 16 bits an element, and the rate is
    rounded to 1/65536.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        # On the CPU from NumPy: torch's Mersenne Twister takes several times as long a word.
        on_cpu = torch.device(device).type == "cpu"
        self._bits = np.random.SFC64(derive_seed(seed, "dropout")) if on_cpu else None
        self._draw = np.random.Generator(self._bits) if on_cpu else None
        self._generator = None if on_cpu else generator(seed, "dropout", device=device)

    def dropout(self, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        """Return ``x`` with elements zeroed at ``rate`` and the others scaled up; any shape.

        Args:
            rows: how many rows count: nothing is drawn for those behind, and none is dropped there.
        """
        return x if rate == 0 else dropout(x, self._drop_rows(x, rate, rows), keeping(rate))

    def add_dropout(
        self, residual: Tensor, x: Tensor, rate: float, rows: int | None = None
    ) -> Tensor:
        """Return ``residual + dropout(x)``, in the residual's precision."""
        if rate == 0:
            return residual + x
        return add_dropout(residual, x, self._drop_rows(x, rate, rows), keeping(rate))

    def _drop_rows(self, x: Tensor, rate: float, rows: int | None) -> Dropped:
        return self.drop(x.shape if rows is None else (rows, *x.shape[1:]), rate)

    def drop(self, shape: Sequence[int], rate: float) -> Dropped:
        """Draw which elements of a tensor dropout zeroes; 0 < rate < 1."""
        count = math.prod(shape)
        return self._places(count, rate) if self._draw is not None else self._mask(count, rate)

    def _places(self, count: int, rate: float) -> Places:
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
        return Places(at[: np.searchsorted(at, count)])

    def _mask(self, count: int, rate: float) -> Mask:
        words = torch.empty((count + 3) // 4, dtype=torch.int64, device=self._generator.device)
        words.random_(-(2**63), None, generator=self._generator)  # one draw serves four
        return Mask(words.view(torch.int16)[:count] >= round(rate * 2**16) - 2**15)

    def state(self) -> Tensor:
        """Return the stream's state, uint8."""
        if self._bits is None:
            return self._generator.get_state()
        return torch.from_numpy(self._bits.state["state"]["state"].copy().view(np.uint8))

    def load_state(self, state: Tensor) -> None:
        """Go on from a state that :meth:`state` returned."""
        if self._bits is None:
            self._generator.set_state(state.cpu())
            return
        words = state.numpy().copy().view(np.uint64)
        if words.shape != (4,):
            raise ValueError(f"a state of {state.numel()} bytes; dropout's has 32")
        self._bits.state = {
            "bit_generator": "SFC64", "state": {"state": words}, "has_uint32": 0, "uinteger": 0,
        }  # fmt: skip


def keeping(rate: float) -> float:
    """Return the factor of what dropout at ``rate`` keeps: the mean stays."""
    return 1 / (1 - rate)
