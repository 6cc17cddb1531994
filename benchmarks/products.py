"""How long matrix products alone would take: the limit of any training or evaluation."""

from __future__ import annotations

import numpy as np
import torch
from lines import Side

from minbert.model.encoder import EncoderShape

_SIZES = {"cpu": 1024, "cuda": 8192}  # of square products
_REPEATS = 4


def forward_operations(shape: EncoderShape, lengths: np.ndarray) -> int:
    """Return the floating-point operations of a forward pass's products, heads apart.

    The last layer computes each sequence's [CLS] alone, but for keys and values of all tokens.
    """
    hidden, inner = shape.hidden_size, shape.intermediate_size
    tokens, sequences = int(lengths.sum()), len(lengths)
    keys = 2 * hidden * hidden * tokens * shape.layers  # and values
    pairs = int((lengths.astype(np.int64) ** 2).sum()) * (shape.layers - 1) + tokens
    asking = 2 * hidden * hidden + 2 * hidden * inner  # a query, and what lies behind attention
    rows = tokens * (shape.layers - 1) + sequences
    return 2 * (keys + 2 * hidden * pairs + asking * rows + hidden * hidden * sequences)


def step_operations(shape: EncoderShape, lengths: np.ndarray) -> int:
    """Return those of a training step of the full model: backward, each product becomes two."""
    return 3 * forward_operations(shape, lengths)


class Products(Side):
    """A large product, in turn with the others: as many ``operations`` a turn."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        size = _SIZES[device.type]
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)

        def run() -> None:
            for _ in range(_REPEATS):
                torch.mm(a, b, out=out)
            synchronize(device)

        super().__init__(run)
        run()
        self.operations = 2 * _REPEATS * size**3


def synchronize(device: torch.device) -> None:
    """Wait for what a device has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
