"""Batches of few shapes: what a CUDA graph is captured for, it is replayed for.

A bucket has room for some tokens in a fixed number of sequences. What a batch leaves free is filled
with sequences of filler, whose outputs nobody looks at: tokens that belong to no sequence would be
left uninitialised by the attention of variable lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_RATIO = 1.25  # of a bucket's tokens to those of the one before
_STEP = 64  # tokens; of which they are multiples


@dataclass(frozen=True)
class Bucket:
    """A shape that batches are brought to.

    Attributes:
        tokens: of all sequences. sequences: how many. longest: tokens of a sequence, at most.
    """

    tokens: int
    sequences: int
    longest: int

    def filler(self, tokens: int, sequences: int) -> np.ndarray:
        """Return the lengths of the sequences of filler behind a batch, each at least 1."""
        free, places = self.tokens - tokens, self.sequences - sequences
        return np.full(places, free // places) + (np.arange(places) < free % places)


class Buckets:
    """The buckets of batches of at most ``batch_size`` sequences of at most ``longest`` tokens."""

    def __init__(self, batch_size: int, longest: int) -> None:
        self._batch_size, self._longest = batch_size, longest
        self._found: list[Bucket] = []
        self._more = self._all()

    def of(self, tokens: int, sequences: int) -> Bucket:
        """Return the smallest bucket that a batch fits in."""
        while not self._found or not _fits(self._found[-1], tokens, sequences):
            self._found.append(next(self._more))
        return next(bucket for bucket in self._found if _fits(bucket, tokens, sequences))

    def _all(self) -> Iterator[Bucket]:
        for before, tokens in pairwise(_sizes(self._batch_size)):
            longest = min(tokens, self._longest)
            fillers = 1 - (before - tokens) // longest  # none is longer than the longest
            yield Bucket(tokens, self._batch_size + fillers, longest)


def _sizes(batch_size: int) -> Iterator[int]:
    """Yield numbers of tokens, and 0 before: the first with room for as many short sequences."""
    yield 0
    tokens = -(-2 * (batch_size + 2) // _STEP) * _STEP
    while True:
        yield tokens
        tokens = -(-int(tokens * _RATIO) // _STEP) * _STEP


def _fits(bucket: Bucket, tokens: int, sequences: int) -> bool:
    return tokens + bucket.sequences - sequences <= bucket.tokens
