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

_LEVELS = 1 << 16  # dropout draws 16 bits an element


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called ``names`` of the training seeded ``seed``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream called ``names``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


class Noise:
    """Dropout (Srivastava et al. 2014) from one random stream.

    A forward pass that is given a ``Noise`` trains; one that is given none evaluates. The rate is
    rounded to 1/65536, and what is kept is scaled by exactly the inverse of the rounded rate.
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
            rows: how many rows count; those behind are zeroed, and nothing is drawn for them.
        """
        return x if _threshold(rate) == 0 else x * self.keep(x, rate, rows)

    def keep(self, like: Tensor, rate: float, rows: int | None = None) -> Tensor:
        """Draw what :meth:`dropout` multiplies a tensor like this by."""
        if rows is None or rows == len(like):
            return self.mask(like.shape, rate, like)
        keep = torch.zeros_like(like)
        keep[:rows] = self.mask((rows, *like.shape[1:]), rate, like)
        return keep

    def mask(self, shape: Sequence[int], rate: float, like: Tensor) -> Tensor:
        """Draw what dropout multiplies by: zero at ``rate``, and elsewhere what keeps the mean.

        Args:
            like: whose type and device it gets.
        """
        drop = _threshold(rate)
        bits = self._words(math.prod(shape)).view(shape)
        keep = (bits >= drop - _LEVELS // 2).to(like.dtype)
        return keep.mul_(_LEVELS / (_LEVELS - drop))

    def _words(self, count: int) -> Tensor:
        """Draw int16 [count], all values equally likely; one 64-bit draw serves four."""
        draws = (count + 3) // 4
        if self._draw is not None:
            words = self._draw.integers(0, 2**64 - 1, draws, dtype=np.uint64, endpoint=True)
            return torch.from_numpy(words.view(np.int16))[:count]
        words = torch.empty(draws, dtype=torch.int64, device=self._generator.device)
        words.random_(-(2**63), None, generator=self._generator)
        return words.view(torch.int16)[:count]

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


def _threshold(rate: float) -> int:
    return round(rate * _LEVELS)
