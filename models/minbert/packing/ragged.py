"""A batch on a GPU: sent in one copy, its attention by kernels that take variable lengths.

Nothing here waits for the GPU: whatever the host must know of a batch, it knows beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nested import nested_tensor_from_jagged

from .pack import PackedBatch, Ragged


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch where the model is: on a CPU as it is, elsewhere as :func:`ragged` has it."""
    return batch if device.type == "cpu" else ragged(batch, device)


def ragged(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch on ``device``, without filler, its groups and its spans' as :class:`Ragged`.

    It is one copy: a dozen small ones would each cost as much.
    """
    offsets = np.append(batch.firsts.numpy(), batch.tokens)
    ends = list(accumulate(span.sequences for span in batch.spans))
    parts = [offsets[end - span.sequences : end + 1] - span.start
             for span, end in zip(batch.spans, ends, strict=True)]  # fmt: skip
    streams = (t[: batch.tokens] for t in (batch.token_ids, batch.segments, batch.positions))
    token_ids, segments, positions, first, *others = send(
        [*streams, *(torch.from_numpy(part) for part in (offsets, *parts))], device
    )
    spans = tuple(
        span._replace(stop=span.start + int(part[-1]), groups=_ragged(part, sent))
        for span, part, sent in zip(batch.spans, parts, others, strict=True)
    )
    return replace(
        batch, token_ids=token_ids, segments=segments, positions=positions, firsts=first[:-1],
        groups=_ragged(offsets, first), spans=spans,
    )  # fmt: skip


def _ragged(offsets: np.ndarray, sent: Tensor) -> Ragged:
    lengths = np.diff(offsets)
    return Ragged(sent, len(lengths), int(lengths.min()), int(lengths.max()))


def send(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """Return tensors of one type and one dimension on ``device``, which is not waited for."""
    whole = torch.cat(list(tensors))
    if device.type == "cuda":
        whole = whole.pin_memory()  # a copy from other memory would wait
    return whole.to(device, non_blocking=True).split([len(t) for t in tensors])


def ragged_attention(
    qkv: Tensor, where: Ragged, heads: int, rate: float, queries: Tensor | None = None
) -> Tensor:
    """Return what :func:`minbert.attention.attention` does, [T, 3H] -> [T, H] or [sequences, H].

    torch takes FlashAttention (Dao 2023) or memory-efficient attention (Rabe and Staats 2021) for
    it, as the precision and the GPU allow. Dropout draws from the device's own generator.
    """
    parts = qkv.unflatten(1, (3 if queries is None else 2, heads, -1)).transpose(0, 1)
    width = parts.shape[3]  # [3 or 2, T, N, D]
    wider = 0, -width % 8  # the kernels want multiples of eight
    *query, key, value = (_nested(part, where) for part in F.pad(parts, wider).contiguous())
    if queries is None:
        (query,) = query
    else:
        each = torch.arange(where.count + 1, device=qkv.device)
        one = where._replace(offsets=each, shortest=1, longest=1)
        query = _nested(F.pad(queries.unflatten(1, (heads, -1)), wider), one)
    context = F.scaled_dot_product_attention(
        query, key, value, dropout_p=rate, scale=width**-0.5
    )
    return context.transpose(1, 2).values()[..., :width].flatten(1)


def _nested(rows: Tensor, where: Ragged) -> Tensor:
    """Return rows [T, N, D] as torch's nested tensor [sequences, N, each's own length, D]."""
    nested = nested_tensor_from_jagged(
        rows, where.offsets, min_seqlen=where.shortest, max_seqlen=where.longest
    )
    return nested.transpose(1, 2)
