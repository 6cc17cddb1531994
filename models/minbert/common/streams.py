"""Random streams: seeds derived by name.

Each part of a training (heads, adapters, data order, schedule, dropout) draws from its own stream,
so that adding one does not move the others, and each stream's state fits in a checkpoint.
"""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called ``names`` of the training seeded ``seed``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream called ``names``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
