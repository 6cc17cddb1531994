"""Random streams: seeds derived by name, and dropout from a generator of one's own.

Each part of a training (heads, adapters, data order, schedule, dropout) draws from its own stream,
so that adding one does not move the others, and each stream's state fits in a checkpoint.
"""

from __future__ import annotations

import hashlib

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
        self._generator = generator(seed, "dropout", device=device)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Return ``x`` with elements zeroed at ``rate`` and the others scaled up; any shape."""
        drop = round(rate * _LEVELS)
        if drop == 0:
            return x
        # One 64-bit draw serves four elements: drawing is serial and would be the slow part.
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=self._generator)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = (bits >= drop - _LEVELS // 2).to(x.dtype)
        return x * keep.mul_(_LEVELS / (_LEVELS - drop))

    def state(self) -> Tensor:
        """Return the stream's state, uint8."""
        return self._generator.get_state()

    def load_state(self, state: Tensor) -> None:
        """Go on from a state that :meth:`state` returned."""
        self._generator.set_state(state.cpu())
