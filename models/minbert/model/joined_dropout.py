"""Dropout of several trainings that share a pass: each drops what it would drop alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..packing.joined import Joined
from .dropout import Dropout
from .dropout_mask import DropoutMask


class JoinedDropout(Dropout):
    """The streams of the batches of a joined one, in their order.

    What draws for a part alone, as attention does, takes that part's own.
    """

    def __init__(self, streams: Sequence[Dropout], joined: Joined) -> None:
        self.streams = tuple(streams)
        self._joined = joined

    def _draw_rows(self, x: Tensor, rate: float, rows: int | None) -> DropoutMask:
        width, parts = x[0].numel(), []
        for stream, (start, stop) in zip(self.streams, self._joined.spans(len(x)), strict=True):
            drawn = stream.draw((stop - start, *x.shape[1:]), rate)
            parts.append(drawn.places + start * width)
        return DropoutMask(np.concatenate(parts))
