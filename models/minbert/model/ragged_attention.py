"""Attention on a GPU, by kernels that take sequences of any length. Nothing here waits for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nested import nested_tensor_from_jagged

from ..packing.pack import Ragged


def ragged_attention(
    qkv: Tensor, where: Ragged, heads: int, rate: float, queries: Tensor | None = None
) -> Tensor:
    """Return what :func:`minbert.model.attention.attention` does: [T, 3H] -> [T, H], or with
    ``queries`` [sequences, H].

    torch takes FlashAttention (Dao 2023) or memory-efficient attention (Rabe and Staats 2021) for
    it, as the precision and the GPU allow. Dropout draws from the device's own generator.
    """
    parts = qkv.unflatten(1, (3 if queries is None else 2, heads, -1)).transpose(0, 1)
    width = parts.shape[3]  # [3 or 2, T, N, D]
    wider = 0, -width % 8  # the kernels want multiples of eight
    *first, key, value = (_nested(part, where) for part in F.pad(parts, wider).contiguous())
    if queries is None:
        (query,) = first
    else:
        each = torch.arange(where.sequences + 1, device=qkv.device)
        one = where._replace(offsets=each, shortest=1, longest=1)
        query = _nested(F.pad(queries.unflatten(1, (heads, -1)), wider), one)
    context = F.scaled_dot_product_attention(query, key, value, dropout_p=rate, scale=width**-0.5)
    return context.transpose(1, 2).values()[..., :width].flatten(1)


def _nested(rows: Tensor, where: Ragged) -> Tensor:
    """Return rows [T, N, D] as torch's nested tensor [sequences, N, each's own length, D]."""
    nested = nested_tensor_from_jagged(
        rows, where.offsets, min_seqlen=where.shortest, max_seqlen=where.longest
    )
    return nested.transpose(1, 2)
