"""Streams of several trainings end to end, so that what they share runs on all of them at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .blocks import Blocks


@dataclass(frozen=True, eq=False)
class Joined:
    """The parts of a stream, each a training's batch.

    Attributes:
        tokens, sequences: int64 [parts], how many each part has; there is no filler.
        blocks: of each part; they count from its own first token.
    """

    tokens: np.ndarray
    sequences: np.ndarray
    blocks: tuple[Blocks, ...]

    def spans(self, rows: int) -> list[tuple[int, int]]:
        """Return where each part's rows begin and end in a tensor of the stream.

        Args:
            rows: of the tensor: as many as there are tokens, or else as sequences.

        Raises:
            ValueError: it has neither.
        """
        for sizes in (self.tokens, self.sequences):
            ends = np.cumsum(sizes)
            if ends[-1] == rows:
                return list(zip((ends - sizes).tolist(), ends.tolist(), strict=True))
        raise ValueError(f"a tensor of {rows} rows is neither of tokens nor of sequences")

    def cut(self, rows: Tensor) -> Iterator[Tensor]:
        """Yield each part's rows of a tensor of the stream."""
        return (rows[start:stop] for start, stop in self.spans(len(rows)))
