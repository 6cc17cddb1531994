"""Confusion matrices as they are shown, without a library that draws: pages need none."""

from __future__ import annotations

import numpy as np


def row_shares(matrix: np.ndarray) -> np.ndarray:
    """Return each count as a share of its row; rows without examples are zero."""
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
