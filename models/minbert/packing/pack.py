"""Batches without padding: sequences laid end to end in one stream of tokens.

Sequences of a batch are put in order of length, so that those of near-equal length lie together
and attention can look at them as one block (:mod:`minbert.packing.blocks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .blocks import LEVEL, Blocks
from .joined import Joined


class Ragged(NamedTuple):
    """Sequences that follow each other in the stream, for attention that takes variable lengths."""

    offsets: Tensor  # int32 [sequences + 1], where each begins, and behind the last
    sequences: int
    longest: int  # tokens; at most: none is longer
    counted: Tensor | None = None  # int32 [sequences + 1], 0, 1, 2, ..., if it is at hand

    @classmethod
    def of(cls, lengths: np.ndarray) -> Ragged:
        """Return sequences of these lengths, int64 [sequences]."""
        offsets = np.cumsum([0, *lengths], dtype=np.int32)
        return cls(torch.from_numpy(offsets), len(lengths), int(lengths.max()))

    def first_tokens(self) -> Ragged:
        """Return the first token of each sequence as a sequence of its own."""
        each = self.counted
        if each is None:
            each = torch.arange(self.sequences + 1, dtype=torch.int32, device=self.offsets.device)
        return Ragged(each, self.sequences, 1)


class Span(NamedTuple):
    """The part of a stream that belongs to one task; its blocks count from its own first token.

    The last one has the filler, too.
    """

    task: str
    start: int  # first token
    stop: int  # behind the last token
    sequences: int
    blocks: Blocks | Ragged


@dataclass(frozen=True)
class PackedBatch:
    """Some sequences as one flat stream of tokens.

    Attributes:
        token_ids, segments, positions: int64 [tokens], and filler at the end if there is any; for a
            GPU int32.
        cls_positions: of that type, [sequences], where each sequence's [CLS] lies.
        tokens: how many there are, without filler.
        blocks: the stream as blocks of near-equal lengths, in order; filler belongs to none. For a
            GPU it is told as :class:`Ragged`, of several trainings as
            :class:`~minbert.packing.joined.Joined`.
        order: int64 [sequences]; ``order[i]`` is the place of packed sequence i among those given.
        spans: the stream as parts of one task each, in order; empty if no task was named.
    """

    token_ids: Tensor
    segments: Tensor
    positions: Tensor
    cls_positions: Tensor
    tokens: int
    blocks: Blocks | Ragged | Joined
    order: np.ndarray
    spans: tuple[Span, ...] = ()

    @property
    def owners(self) -> Tensor:
        """Which sequence each token belongs to, int64 [tokens]; one more than the last: filler."""
        begins = torch.zeros_like(self.token_ids).index_fill_(0, self.cls_positions.long(), 1)
        if self.tokens < len(begins):
            begins[self.tokens] = 1
        return begins.cumsum(0) - 1


def pack(
    sequences: Sequence[np.ndarray],
    segment_starts: Sequence[int],
    tasks: Sequence[str] = (),
    fill: bool = False,
    level: bool = False,
    ragged: bool = False,
) -> PackedBatch:
    """Pack sequences into one stream, by task and then by length.

    Matrix products in bfloat16 are prepared for each shape on a CPU, and kept: few should occur.

    Args:
        sequences: token ids of each sequence, each with at least one token.
        segment_starts: where the second segment of each sequence begins (its length if it has
            none).
        tasks: the task of each sequence, for task-specific layers.
        fill: round the stream's length up with tokens that belong to no sequence.
        level: round the length of blocks up, too, for an attention that multiplies matrices.
        ragged: tell where sequences lie as a GPU wants it.
    """
    lengths = np.array([len(s) for s in sequences])
    order = np.lexsort((lengths, np.array(tasks))) if len(tasks) else _stable(lengths)
    lengths = lengths[order]
    starts = np.cumsum(lengths) - lengths
    stream = np.concatenate([sequences[i] for i in order]).astype(np.int32 if ragged else np.int64)
    positions = np.arange(len(stream)) - np.repeat(starts, lengths)
    segments = positions >= np.repeat(np.asarray(segment_starts)[order], lengths)
    filler = rounded(len(stream)) - len(stream) if fill else 0
    lay_out = Ragged.of if ragged else partial(Blocks, step=LEVEL if level else 1)
    spans = _spans([tasks[i] for i in order], lengths, filler, lay_out) if len(tasks) else ()
    return PackedBatch(
        token_ids=_filled(stream, filler),
        segments=_filled(segments.astype(stream.dtype), filler),
        positions=_filled(positions.astype(stream.dtype), filler),
        cls_positions=torch.from_numpy(starts.astype(stream.dtype)),
        tokens=len(stream),
        blocks=spans[0].blocks if len(spans) == 1 else lay_out(lengths),
        order=order,
        spans=spans,
    )


def join(batches: Sequence[PackedBatch]) -> PackedBatch:
    """Lay batches of several trainings end to end; its `blocks` keep them apart.

    Args:
        batches: each with :class:`~minbert.packing.blocks.Blocks` and without filler.
    """
    tokens = np.array([batch.tokens for batch in batches])
    starts = np.cumsum(tokens) - tokens
    first = [b.cls_positions + int(start) for b, start in zip(batches, starts, strict=True)]
    blocks = tuple(batch.blocks for batch in batches if isinstance(batch.blocks, Blocks))
    return PackedBatch(
        token_ids=torch.cat([batch.token_ids for batch in batches]),
        segments=torch.cat([batch.segments for batch in batches]),
        positions=torch.cat([batch.positions for batch in batches]),
        cls_positions=torch.cat(first),
        tokens=int(tokens.sum()),
        blocks=Joined(tokens, np.array([len(each) for each in first]), blocks),
        order=np.concatenate([batch.order for batch in batches]),
    )


def rounded(tokens: int) -> int:
    """Return the next of few lengths of a stream: at most an eighth more above 512 tokens."""
    step = 64 if tokens <= 1024 else 128 if tokens <= 2048 else 256
    return -(-tokens // step) * step


def _filled(values: np.ndarray, filler: int) -> Tensor:
    return torch.from_numpy(np.pad(values, (0, filler)) if filler else values)


def _stable(lengths: np.ndarray) -> np.ndarray:
    return np.argsort(lengths, kind="stable")


def _spans(
    tasks: list[str],
    lengths: np.ndarray,
    filler: int,
    lay_out: Callable[[np.ndarray], Blocks | Ragged],
) -> tuple[Span, ...]:
    spans, start = [], 0
    for task, places in groupby(range(len(tasks)), key=tasks.__getitem__):
        mine = lengths[list(places)]
        spans.append(Span(task, start, start + int(mine.sum()), len(mine), lay_out(mine)))
        start = spans[-1].stop
    spans[-1] = spans[-1]._replace(stop=spans[-1].stop + filler)
    return tuple(spans)


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
