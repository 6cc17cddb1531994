"""Batches without padding: sequences laid end to end in one stream of tokens.

Sequences of a batch are put in order of length, so that those of equal length lie together and
attention can look at them as one block, without copying and without a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Run(NamedTuple):
    """Sequences of one length that follow each other in the stream."""

    start: int  # first token
    count: int  # sequences
    length: int  # tokens of each


class Span(NamedTuple):
    """The part of a stream that belongs to one task; its runs count from its own first token."""

    task: str
    start: int  # first token
    stop: int  # behind the last token
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class PackedBatch:
    """Some sequences as one flat stream of tokens.

    Attributes:
        token_ids, segments, positions: int64 [tokens].
        firsts: int64 [sequences], where each sequence's [CLS] lies.
        runs: the stream as blocks of equal-length sequences, in order.
        order: int64 [sequences]; ``order[i]`` is the place of packed sequence i among those given.
        spans: the stream as parts of one task each, in order; empty if no task was named.
    """

    token_ids: Tensor
    segments: Tensor
    positions: Tensor
    firsts: Tensor
    runs: tuple[Run, ...]
    order: np.ndarray
    spans: tuple[Span, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens in the stream."""
        return self.token_ids.numel()

    @property
    def owners(self) -> Tensor:
        """Which sequence each token belongs to, int64 [tokens]."""
        begins = torch.zeros_like(self.token_ids)
        begins[self.firsts] = 1
        return begins.cumsum(0) - 1

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on ``device``."""
        if self.token_ids.device == device:
            return self
        moved = (
            t.to(device, non_blocking=True)
            for t in (self.token_ids, self.segments, self.positions, self.firsts)
        )
        return PackedBatch(*moved, self.runs, self.order, self.spans)


def pack(
    sequences: Sequence[np.ndarray], seconds: Sequence[int], tasks: Sequence[str] = ()
) -> PackedBatch:
    """Pack sequences into one stream, by task and then by length.

    Args:
        sequences: token ids of each sequence, each with at least one token.
        seconds: for each sequence, where its second segment begins (its length if it has none).
        tasks: the task of each sequence, for task-specific layers.
    """
    lengths = np.array([len(s) for s in sequences])
    order = np.lexsort((lengths, np.array(tasks))) if len(tasks) else _stable(lengths)
    lengths = lengths[order]
    starts = np.cumsum(lengths) - lengths
    stream = np.concatenate([sequences[i] for i in order]).astype(np.int64)
    positions = np.arange(len(stream)) - np.repeat(starts, lengths)
    segments = positions >= np.repeat(np.asarray(seconds)[order], lengths)
    spans = _spans([tasks[i] for i in order], starts, lengths) if len(tasks) else ()
    return PackedBatch(
        token_ids=torch.from_numpy(stream),
        segments=torch.from_numpy(segments.astype(np.int64)),
        positions=torch.from_numpy(positions),
        firsts=torch.from_numpy(starts),
        runs=_runs(starts, lengths),
        order=order,
        spans=spans,
    )


def _stable(lengths: np.ndarray) -> np.ndarray:
    return np.argsort(lengths, kind="stable")


def _spans(tasks: list[str], starts: np.ndarray, lengths: np.ndarray) -> tuple[Span, ...]:
    spans = []
    for task, places in groupby(range(len(tasks)), key=tasks.__getitem__):
        chosen = list(places)
        start, mine = int(starts[chosen[0]]), lengths[chosen]
        runs = _runs(starts[chosen] - start, mine)
        spans.append(Span(task, start, start + int(mine.sum()), runs))
    return tuple(spans)


def _runs(starts: np.ndarray, lengths: np.ndarray) -> tuple[Run, ...]:
    begins = np.flatnonzero(np.diff(lengths, prepend=-1))
    counts = np.diff(begins, append=len(lengths))
    return tuple(
        Run(int(starts[at]), int(count), int(lengths[at]))
        for at, count in zip(begins, counts, strict=True)
    )


def length_ordered(lengths: np.ndarray, token_budget: int) -> Iterator[np.ndarray]:
    """Yield indices of sequences in order of length, about ``token_budget`` tokens at a time.

    Every index comes exactly once; a sequence longer than the budget comes alone.
    """
    order = _stable(lengths)
    begin, tokens = 0, 0
    for place, index in enumerate(order):
        if place > begin and tokens + lengths[index] > token_budget:
            yield order[begin:place]
            begin, tokens = place, 0
        tokens += int(lengths[index])
    if begin < len(order):
        yield order[begin:]
