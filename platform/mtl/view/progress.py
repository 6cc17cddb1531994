"""How far trials are, as a table: while a study runs here, and seen from another terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.progress_bar import ProgressBar
from rich.table import Table

from . import words

_BAR = 24  # columns
_WIDE = 110


@dataclass
class RunningTrial:
    """What is known of a trial that runs."""

    setting: str
    resumed: bool
    step: int = 0
    total_steps: int = 0
    first_step: int | None = None  # a resumed trial does not begin at 0
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    best: float | None = None
    tokens_per_second: float = 0.0

    @property
    def part(self) -> float:
        return self.step / self.total_steps if self.total_steps else 0.0

    @property
    def part_here(self) -> float:
        """The part of the trial that was trained while we watched."""
        first = self.first_step or 0
        return (self.step - first) / self.total_steps if self.total_steps else 0.0


@dataclass
class StudyProgress:
    """How far the study is, in trials; a part of a trial counts as that part."""

    done: int
    total: int
    started: float = field(default_factory=time.monotonic)
    here: float = 0.0  # trials' worth of work that ended while we watched

    def left(self, running: Sequence[RunningTrial]) -> float | None:
        """Estimate the seconds left from the pace so far; None until there is a pace."""
        work = self.here + sum(row.part_here for row in running)
        if work <= 0:
            return None
        rest = self.total - self.done - sum(row.part for row in running)
        return max(rest, 0.0) * (time.monotonic() - self.started) / work


def running_table(running: Mapping[int, RunningTrial], width: int = _WIDE) -> Table:
    """Lay out running trials, by number: a bar, where it is, its scores as a sparkline.

    On a terminal of less than ``_WIDE`` columns the bar is shorter, and the last columns are gone.
    """
    wide = width >= _WIDE
    table = words.plain_table("trial>")
    table.add_column("parameters", no_wrap=True)
    table.add_column("progress", no_wrap=True)
    names = ("step", "epoch", "score", "", "best", "tokens/s")
    for name in names if wide else names[:-2]:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for number, row in running.items():
        cells = _cells(row, _BAR if wide else _BAR // 3)
        table.add_row(str(number), row.setting, *(cells if wide else cells[:-2]))
    return table


def evaluated_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out running trials as the database knows them: from one evaluation to the next.

    Args:
        rows: each with number, setting, epoch (None before the first), epochs and scores.
    """
    table = words.plain_table("trial>", "parameters", "progress", "epoch>", "score>", "", "best>")
    for row in rows:
        scores, epochs, epoch = row["scores"], row["epochs"] or 1, row["epoch"] or 0
        table.add_row(
            str(row["number"]),
            row["setting"],
            ProgressBar(total=epochs, completed=epoch, width=_BAR, complete_style="cyan"),
            f"{epoch}/{epochs}",
            words.score(scores[-1] if scores else None),
            words.sparkline(scores),
            words.score(max(scores, default=None)),
        )
    return table


def _cells(row: RunningTrial, width: int) -> list[Any]:
    total = max(row.total_steps, 1)
    bar = ProgressBar(total=total, completed=row.step, width=width, complete_style="cyan")
    return [
        bar,
        _stage(row),
        str(row.epoch) if row.epoch else "-",
        words.score(row.scores[-1] if row.scores else None),
        words.sparkline(row.scores),
        words.score(row.best),
        f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "-",
    ]


def _stage(row: RunningTrial) -> str:
    """Say where a trial is: before its first step, training, or writing its artifacts."""
    if not row.total_steps:
        return "starting"
    return "recording" if row.step == row.total_steps else f"{row.step}/{row.total_steps}"
