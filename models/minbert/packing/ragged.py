"""A batch on its way to a GPU, in one copy.

Nothing here waits for the GPU: whatever the host must know of a batch, it knows beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .pack import PackedBatch, Ragged


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return a batch where the model is: on a CPU as it is, elsewhere sent in one copy.

    A dozen small copies would each cost as much.

    Args:
        batch: for other devices than a CPU, one that was packed with ``ragged``.
    """
    return batch if device.type == "cpu" else _sent(batch, device)


def _sent(batch: PackedBatch, device: torch.device) -> PackedBatch:
    layouts = [_ragged(batch.blocks), *(_ragged(span.blocks) for span in batch.spans)]
    streams = (batch.token_ids, batch.segments, batch.positions, batch.cls_positions)
    token_ids, segments, positions, cls_positions, *offsets = send(
        [*streams, *(each.offsets for each in layouts)], device
    )
    blocks, *parts = (each._replace(offsets=o) for each, o in zip(layouts, offsets, strict=True))
    spans = zip(batch.spans, parts, strict=True)
    return replace(
        batch, token_ids=token_ids, segments=segments, positions=positions,
        cls_positions=cls_positions, blocks=blocks,
        spans=tuple(span._replace(blocks=part) for span, part in spans),
    )  # fmt: skip


def _ragged(blocks) -> Ragged:
    if not isinstance(blocks, Ragged):
        raise TypeError("a batch for a device is packed with ragged=True")
    return blocks


def send(tensors: Sequence[Tensor], device: torch.device) -> tuple[Tensor, ...]:
    """Return tensors of one type and one dimension on ``device``, which is not waited for."""
    whole = sendable(torch.cat(list(tensors)), device)
    return whole.to(device, non_blocking=True).split([len(t) for t in tensors])


def sendable(t: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host's in memory from which a copy to ``device`` does not wait."""
    return t.pin_memory() if device.type == "cuda" else t
