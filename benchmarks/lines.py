"""What a benchmark measures and prints: sides that take turns, and a table of their ratios."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass
class Line:
    """One line of the table; seconds, or bytes.

    ``ratio`` is how many times ours is better, or what ours costs; ``target`` says which.
    """

    what: str
    ours: float
    theirs: float
    ratio: float
    target: str
    spread: str = ""
    met: bool | None = None


class Side:
    """Something that is timed, and its seconds a round."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.seconds: list[float] = []

    @classmethod
    def of(cls, seconds: np.ndarray) -> Side:
        """Return what would take so many seconds, round by round."""
        side = cls(lambda: None)
        side.seconds = seconds.tolist()
        return side

    def turn(self, per: int = 1) -> None:
        """Run once; note the seconds, each of ``per`` parts."""
        begin = time.perf_counter()
        self._run()
        self.seconds.append((time.perf_counter() - begin) / per)

    def gather(self, counts: list[int]) -> None:
        """Make one figure of the last turns, their mean; ``counts`` is how much each weighs."""
        last = self.seconds[-len(counts) :]
        self.seconds[-len(counts) :] = [float(np.average(last, weights=counts))]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return (high - low) / 2 / self.median


def compare(what: str, ours: Side, theirs: Side, least: float | None) -> Line:
    """How many times ours is faster; None has no target."""
    ratio = theirs.median / ours.median
    target = "" if least is None else f"at least {least:g}x"
    return _line(what, ours, theirs, ratio, target, None if least is None else ratio >= least)


def cost(what: str, ours: Side, theirs: Side, most: float | None) -> Line:
    """How many times as long ours takes."""
    ratio = ours.median / theirs.median
    target = "" if most is None else f"at most {most:g}x"
    return _line(what, ours, theirs, ratio, target, None if most is None else ratio <= most)


def limit(what: str, ours: Side, alone: Side) -> Line:
    """The share of ours that is spent at best: 1 cannot be passed."""
    return _line(what, ours, alone, alone.median / ours.median, "", None)


def _line(what, ours: Side, theirs: Side, ratio: float, target: str, met: bool | None) -> Line:
    spread = f"±{ours.spread:.0%} / ±{theirs.spread:.0%}"
    return Line(what, ours.median, theirs.median, ratio, target, spread, met)


def print_table(lines: list[Line]) -> None:
    """Print what was measured."""
    table = Table("what", *(("ours", "theirs", "ratio", "target", "spread")), title="Benchmarks")
    for column in table.columns[1:4]:
        column.justify = "right"
    for line in lines:
        mark = {True: " [green]met[/]", False: " [red]missed[/]", None: ""}[line.met]
        show = _size if line.ours > 1e4 else _seconds
        table.add_row(line.what, show(line.ours), show(line.theirs), f"{line.ratio:.2f}x",
                      line.target + mark, line.spread)  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 0.01 else f"{value * 1e3:.2f} ms"


def _size(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"
