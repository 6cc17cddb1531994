"""Words, numbers and tables that every view and command prints the same way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..common.text import count

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

_BARS = "▁▂▃▄▅▆▇█"


def score(given: float | None, digits: int = 3) -> str:
    """Write a score; a dash where there is none."""
    return "-" if given is None else f"{given:.{digits}f}"


def scores(given: Mapping[str, float]) -> str:
    """Write the scores of one evaluation in one line."""
    return (
        f"score {given['score']:.3f} (SST {given['sst_accuracy']:.3f}, "
        f"PARA {given['para_accuracy']:.3f}, STS {given['sts_pearson']:.3f})"
    )


def ending(number: int, state: str, final: float | None, reason: str | None) -> str:
    """Say in one line how a trial ended."""
    said = f"trial {number} {state}"
    said += "" if final is None else f": score {final:.3f}"
    return said + (f" ({reason})" if reason else "")


def at_a_time(workers: int, places: int) -> str:
    """Say how many trials run at the same time: ``2 workers``, ``1 worker with 3 trials``."""
    if places == 1:
        return count(workers, "worker")
    return f"{count(workers, 'worker')} with {places} trials" + (" each" if workers > 1 else "")


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Draw the last values as bars, from the lowest of them to the highest: ``▁▄▆█``."""
    shown = [value for value in values if math.isfinite(value)][-width:]
    if len(shown) < 2:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in shown)


def clock(seconds: float) -> str:
    """Write a duration: ``0:42``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(number: int) -> str:
    """Write a number of bytes: ``0.4 kB``, ``12.0 MB``, ``1.2 GB``."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number / 1e3:.1f} kB"


def states(counts: Mapping[str, int], total: int | None = None) -> str:
    """Write how many trials are in which state, leaving out the states of none:
    ``9 complete, 1 unfinished of 16 trials``.

    Args:
        total: trials that there shall be; None if that is not known.
    """
    said = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    if total is None:
        return said or "no trials"
    of = f"of {count(total, 'trial')}"
    return f"{said} {of}" if said else f"none {of} begun"


def plain_table(*columns: str, **options: Any) -> Table:
    """Return an empty table in the style of all of them.

    Args:
        columns: titles; one that ends in ``>`` stands on the right.
        options: of each column, as rich has them.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, show_edge=False)
    for name in columns:
        side: JustifyMethod = "right" if name.endswith(">") else "left"
        table.add_column(name.removesuffix(">"), justify=side, **options)
    return table


def with_deviation(centre: float, deviation: float | None, digits: int = 3) -> str:
    """Write a mean with its deviation: ``0.781 ± 0.004``."""
    return score(centre, digits) + ("" if deviation is None else f" ± {deviation:.{digits}f}")
