"""Batches without padding: sequences laid end to end in one stream of tokens.

Sequences of a batch are put in order of length, so that those of equal length lie together and
attention can look at them as one block, without copying and without a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Run(NamedTuple):
    """Sequences of one length that follow each other in the stream."""

    start: int  # first token
    count: int  # sequences
    length: int  # tokens of each


@dataclass(frozen=True)
class PackedBatch:
    """Some sequences as one flat stream of tokens.

    Attributes:
        token_ids, segments, positions: int64 [tokens].
        firsts: int64 [sequences], where each sequence's [CLS] lies.
        runs: the stream as blocks of equal-length sequences, in order.
        order: int64 [sequences]; ``order[i]`` is the place of packed sequence i among those given.
    """

    token_ids: Tensor
    segments: Tensor
    positions: Tensor
    firsts: Tensor
    runs: tuple[Run, ...]
    order: np.ndarray

    @property
    def tokens(self) -> int:
        """Number of tokens in the stream."""
        return self.token_ids.numel()

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on ``device``."""
        if self.token_ids.device == device:
            return self
        moved = (
            t.to(device, non_blocking=True)
            for t in (self.token_ids, self.segments, self.positions, self.firsts)
        )
        return PackedBatch(*moved, self.runs, self.order)


def pack(sequences: Sequence[np.ndarray], seconds: Sequence[int]) -> PackedBatch:
    """Pack sequences into one stream.

    Args:
        sequences: token ids of each sequence, each with at least one token.
        seconds: for each sequence, where its second segment begins (its length if it has none).
    """
    lengths = np.array([len(s) for s in sequences])
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    starts = np.cumsum(lengths) - lengths
    stream = np.concatenate([sequences[i] for i in order]).astype(np.int64)
    positions = np.arange(len(stream)) - np.repeat(starts, lengths)
    segments = positions >= np.repeat(np.asarray(seconds)[order], lengths)
    return PackedBatch(
        token_ids=torch.from_numpy(stream),
        segments=torch.from_numpy(segments.astype(np.int64)),
        positions=torch.from_numpy(positions),
        firsts=torch.from_numpy(starts),
        runs=_runs(starts, lengths),
        order=order,
    )


def _runs(starts: np.ndarray, lengths: np.ndarray) -> tuple[Run, ...]:
    unique, first, counts = np.unique(lengths, return_index=True, return_counts=True)
    return tuple(
        Run(int(starts[at]), int(count), int(length))
        for length, at, count in zip(unique, first, counts, strict=True)
    )


def length_ordered(lengths: np.ndarray, token_budget: int) -> Iterator[np.ndarray]:
    """Yield indices of sequences in order of length, about ``token_budget`` tokens at a time.

    Every index comes exactly once; a sequence longer than the budget comes alone.
    """
    order = np.argsort(lengths, kind="stable")
    begin, tokens = 0, 0
    for place, index in enumerate(order):
        if place > begin and tokens + lengths[index] > token_budget:
            yield order[begin:place]
            begin, tokens = place, 0
        tokens += int(lengths[index])
    if begin < len(order):
        yield order[begin:]
