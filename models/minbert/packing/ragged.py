"""A batch on a GPU: sent in one copy, its sequences by their offsets.

Nothing here waits for the GPU: whatever the host must know of a batch, it knows beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from .pack import PackedBatch, Ragged


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch where the model is: on a CPU as it is, elsewhere as :func:`ragged` has it."""
    return batch if device.type == "cpu" else ragged(batch, device)


def ragged(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch on ``device``, without filler, its blocks and its spans' as :class:`Ragged`.

    It is one copy: a dozen small ones would each cost as much.
    """
    offsets = np.append(batch.cls_positions.numpy(), batch.tokens)
    ends = list(accumulate(span.sequences for span in batch.spans))
    parts = [offsets[end - span.sequences : end + 1] - span.start
             for span, end in zip(batch.spans, ends, strict=True)]  # fmt: skip
    streams = (t[: batch.tokens] for t in (batch.token_ids, batch.segments, batch.positions))
    token_ids, segments, positions, first, *others = send(
        [*streams, *(torch.from_numpy(part) for part in (offsets, *parts))], device
    )
    spans = tuple(
        span._replace(stop=span.start + int(part[-1]), blocks=_ragged(part, sent))
        for span, part, sent in zip(batch.spans, parts, others, strict=True)
    )
    return replace(
        batch, token_ids=token_ids, segments=segments, positions=positions,
        cls_positions=first[:-1], blocks=_ragged(offsets, first), spans=spans,
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
