"""Sequences of near-equal lengths as blocks, for attention on a CPU: only there are they padded.

T tokens   P places of all blocks, padding included   N heads   D a head's size
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

# What one more block costs attention, in pairs of tokens: some thirty kernels more.
_BLOCK_COST = 4096
LEVEL = 16  # lengths of blocks are multiples of it, where few should occur


class Block(NamedTuple):
    """Sequences of near-equal length that follow each other in the stream: one attention product.

    Padded, they are ``sequences`` rows of ``length`` places each.
    """

    sequences: int
    longest: int  # tokens of the longest
    length: int  # that, or rounded up
    lengths: np.ndarray  # int64 [sequences], tokens of each

    @property
    def places(self) -> int:
        return self.sequences * self.length

    @property
    def real(self) -> np.ndarray:
        """Which places are not padding, bool [sequences, length]."""
        return np.arange(self.length) < self.lengths[:, None]

    @property
    def within(self) -> np.ndarray:
        """Which token of its sequence stands in each place, int64 [sequences, length]."""
        return np.minimum(np.arange(self.length), self.lengths[:, None] - 1)


class HeadLayout(NamedTuple):
    """Where rows of one head, [., D], lie, in the stream and in the blocks.

    A block has them as [sequences * N, length, D], and one block follows the other.
    """

    parts: int  # 3: queries, keys and values; 2: keys and values alone
    take: Tensor  # int64 [parts * P * N]: which rows of [T * parts * N, D] come, part after part
    spread: Tensor  # int64 [P * N]: the rows of [T * N, D] that stand in each place
    gather: Tensor  # int64 [T * N]: the reverse, for each token its places
    back: Tensor  # int64 [T * parts * N]: the reverse of ``take``
    padding: Tensor | None  # int64: which of the P * N rows are padding


class Blocks(Sequence[Block]):
    """The sequences of a stream, in order of length, as blocks.

    Args:
        lengths: int64, tokens of each sequence, ascending within each task.
        step: lengths of blocks are multiples of it; what they hold does not depend on it.

    Attributes:
        tokens: T. padded: whether any place is padding.
        source: int64 [P], which token stands in each place (on padding, the sequence's last).
        places: int64 [T], in which place each token stands.
    """

    def __init__(self, lengths: np.ndarray, step: int = 1) -> None:
        self._blocks = tuple(
            _block(run[first:behind], step)
            for run in np.split(lengths, np.flatnonzero(np.diff(lengths) < 0) + 1)
            for first, behind in pairwise(_cuts(run))
        )
        self.tokens = int(lengths.sum())
        self._real = np.concatenate([block.real.ravel() for block in self])
        self.padded = not self._real.all()
        within = np.concatenate([block.within.ravel() for block in self])
        widths = np.repeat([g.length for g in self], [g.sequences for g in self])
        self.source = torch.from_numpy(np.repeat(np.cumsum(lengths) - lengths, widths) + within)
        self.places = torch.from_numpy(np.flatnonzero(self._real))
        self._layouts: dict[tuple[int, int], HeadLayout] = {}
        self._biases: dict[torch.dtype, list[Tensor | None]] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index):
        return self._blocks[index]

    @torch.inference_mode(False)  # whoever asks first may be an evaluation
    def padding_bias(self, dtype: torch.dtype) -> list[Tensor | None]:
        """Return what is added to a block's scores, [sequences, 1, 1, length]; None: nothing.

        Minus infinity on padding: a sum takes a tenth of the time of filling by mask.
        """
        if dtype not in self._biases:
            self._biases[dtype] = [_bias(block.real, dtype) for block in self]
        return self._biases[dtype]

    @torch.inference_mode(False)
    def head_layout(self, number: int, parts: int = 3) -> HeadLayout:
        """Return where the rows of each of ``number`` heads lie, see :class:`HeadLayout`."""
        key = number, parts
        if key not in self._layouts:
            self._layouts[key] = self._lay_out(number, parts)
        return self._layouts[key]

    def _lay_out(self, number: int, parts: int) -> HeadLayout:
        cells = np.arange(self._real.size * number).reshape(-1, number)  # a head of a place
        blocks = np.split(cells, np.cumsum([block.places for block in self])[:-1])
        rows = np.concatenate(  # which cell each row of the blocks is
            [block.reshape(g.sequences, g.length, number).swapaxes(1, 2).ravel()
             for block, g in zip(blocks, self, strict=True)]
        )  # fmt: skip
        place, head = np.divmod(rows, number)
        token, part = self.source.numpy()[place], np.arange(parts)[:, None]
        where = np.empty_like(cells)  # the reverse: where each cell went
        where.ravel()[rows] = np.arange(len(rows))
        places = where[self.places.numpy()]  # [T, N]
        return HeadLayout(
            parts,
            take=_flat((token * parts + part) * number + head),
            spread=_flat(token * number + head),
            gather=_flat(places),
            back=_flat(places[:, None] + part * len(rows)),
            padding=_flat(np.flatnonzero(~self._real[place])) if self.padded else None,
        )


def _flat(indices: np.ndarray) -> Tensor:
    return torch.from_numpy(indices.ravel())


def _bias(real: np.ndarray, dtype: torch.dtype) -> Tensor | None:
    if real.all():
        return None
    return torch.from_numpy(np.where(real, 0.0, -np.inf)).to(dtype)[:, None, None]


def _cuts(lengths: np.ndarray) -> list[int]:
    """Return where blocks of sequences begin, and behind the last: the cheapest division.

    A block costs what every block does, and its padded pairs of tokens.
    """
    ends = np.append(np.flatnonzero(np.diff(lengths)) + 1, len(lengths))  # only between lengths
    begins = np.concatenate(([0], ends[:-1]))
    least, came_from = np.zeros(len(ends) + 1), np.zeros(len(ends) + 1, dtype=int)
    for last, end in enumerate(ends, start=1):
        pairs = (end - begins[:last]) * float(lengths[end - 1]) ** 2
        costs = least[:last] + pairs + _BLOCK_COST
        came_from[last] = costs.argmin()
        least[last] = costs[came_from[last]]
    cuts, last = [len(lengths)], len(ends)
    while last:
        last = came_from[last]
        cuts.append(int(begins[last]))
    return cuts[::-1]


def _block(lengths: np.ndarray, step: int) -> Block:
    longest = int(lengths[-1])
    return Block(len(lengths), longest, -(-longest // step) * step, lengths)
