"""Axes and dots of interactive figures, so that many stay readable."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor, log10
from typing import TypeVar

Item = TypeVar("Item")

DRAWN = 2000
"""Dots of a figure: of more, a browser takes seconds to draw them, and nobody tells them apart."""
_CROWD = 300  # dots from which they are small and let others shine through
_DECADES = 2.5  # of an axis that has ticks between them
WIDE = 20.0  # largest by smallest value from which an axis is logarithmic


def thinned(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return at most so many of the items, evenly chosen, in their order."""
    if len(items) <= most:
        return items
    return [items[place * len(items) // most] for place in range(most)]


def dots(count: int) -> dict[str, float]:
    """Return size and opacity for so many dots."""
    return {"size": 9, "opacity": 0.9} if count < _CROWD else {"size": 5, "opacity": 0.5}


def log_ticks(low: float, high: float) -> dict[str, list]:
    """Return ticks for a logarithmic axis: at 1, 2 and 5 of each decade, of many at 1 alone."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    figures = (1, 2, 5) if log10(high / low) < _DECADES else (1,)
    values = [figure * 10.0**decade for decade in decades for figure in figures]
    return {"tickvals": values, "ticktext": [f"{value:.6g}" for value in values]}
