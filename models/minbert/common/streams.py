"""Random streams: seeds derived by name.

Each part of a training (heads, adapters, data order, schedule, dropout) draws from its own stream,
so that adding one does not move the others, and each stream's state fits in a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

_CUDA_STATE = 16  # bytes of a CUDA generator's state


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed for the stream called ``names`` of the training seeded ``seed``."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream called ``names``; on ``meta``, which draws nothing,
    any."""
    device = "cpu" if torch.device(device).type == "meta" else device
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))


def stream_name(name: str, device: torch.device) -> str:
    """Return what a stream's state is called in a checkpoint: each kind of device has its own."""
    return name if device.type == "cpu" else f"{name}/{device.type}"


def stream_state(tensors: Mapping[str, Tensor], name: str, device: torch.device) -> Tensor | None:
    """Return a stream's state from a checkpoint; None where it was another kind of device's."""
    state = tensors.get(stream_name(name, device))
    if state is None and device.type == "cuda":
        state = tensors.get(name)  # so it was called in version 0.1.0, whatever the device
        state = None if state is None or len(state) != _CUDA_STATE else state
    return None if state is None else state.cpu()
