"""Batches of several trainings as one stream: what they share runs on it once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pack import PackedBatch


@dataclass(frozen=True)
class Joined:
    """The parts of a stream, each a batch of its own.

    Attributes:
        batches: in order, without filler.
    """

    batches: tuple[PackedBatch, ...]

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Return where each batch's rows begin and end in a tensor of the stream.

        Args:
            rows: of the tensor: as many as there are tokens, or else as sequences.

        Raises:
            ValueError: it has neither.
        """
        for sizes in (self._tokens, self._sequences):
            ends = np.cumsum(sizes)
            if ends[-1] == rows:
                return list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))
        raise ValueError(f"a tensor of {rows} rows is neither of tokens nor of sequences")

    def cut(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield each batch's rows of a tensor of the stream."""
        return (rows[start:stop] for start, stop in self.spans(len(rows)))

    @property
    def _tokens(self) -> np.ndarray:
        return np.array([batch.tokens for batch in self.batches])

    @property
    def _sequences(self) -> np.ndarray:
        return np.array([len(batch.cls_positions) for batch in self.batches])


def join(batches: Sequence[PackedBatch]) -> PackedBatch:
    """Lay batches, packed without filler, end to end; `blocks` keeps them apart."""
    joined = Joined(tuple(batches))
    tokens = sum(batch.tokens for batch in batches)
    starts = [start for start, _ in joined.spans(tokens)]
    each = zip(batches, starts, strict=True)
    return PackedBatch(
        token_ids=torch.cat([batch.token_ids for batch in batches]),
        segments=torch.cat([batch.segments for batch in batches]),
        positions=torch.cat([batch.positions for batch in batches]),
        cls_positions=torch.cat([batch.cls_positions + start for batch, start in each]),
        tokens=tokens,
        blocks=joined,
        order=np.concatenate([batch.order for batch in batches]),
    )
