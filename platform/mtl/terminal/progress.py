"""How far trials are, as a table: while a study runs here, and seen from another terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.progress_bar import ProgressBar

from . import words
from .tables import Column, fitted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_BAR = 24  # columns
_SPARKLINE = 12
_SUSPENDED = 5.0  # seconds without a look: a screen is drawn four times a second


@dataclass
class RunningTrial:
    """What is known of a trial that runs."""

    label: str
    resumed: bool
    step: int = 0
    total_steps: int = 0
    first_step: int | None = None  # a resumed trial does not begin at 0
    epoch: int = 0
    scores: list[float] = field(default_factory=list)
    best: float | None = None
    tokens_per_second: float = 0.0
    evaluating: bool = False

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
    """How far the study is, in trials; a part of a trial counts as that part.

    Attributes:
        done: trials that have ended; total: that there shall be.
        here: trials' worth of work that ended while we watched.
        seconds: that we watched, up to the last look; what passed while everything was suspended
            is not among them.
    """

    done: int
    total: int
    here: float = 0.0
    seconds: float = 0.0
    _looked: float = field(default_factory=time.monotonic)

    def left(self, running: Sequence[RunningTrial]) -> float | None:
        """Estimate the seconds left from the pace so far; None until there is a pace.

        Asked several times a second.
        """
        now = time.monotonic()
        if now - self._looked < _SUSPENDED:
            self.seconds += now - self._looked
        self._looked = now
        work = self.here + sum(row.part_here for row in running)
        if work <= 0:
            return None
        rest = self.total - self.done - sum(row.part for row in running)
        return max(rest, 0.0) * self.seconds / work


def running_table(screen: Console, running: Mapping[int, RunningTrial]) -> Table:
    """Lay out running trials, by number: a bar, where it is, its scores as a sparkline.

    On a narrow terminal the bar is shorter, and the columns that say least are gone.
    """
    rows = list(running.values())
    columns = {
        "trial": Column("trial>", [str(number) for number in running]),
        "parameters": Column("parameters", [row.label for row in rows], folds=True),
        "bar": _bars([(row.step, row.total_steps) for row in rows]),
        "step": Column("step>", [_stage(row) for row in rows], least=10),
        "epoch": Column("epoch>", [str(row.epoch or "-") for row in rows]),
        "score": Column("score>", [_last(row.scores) for row in rows]),
        "sparkline": Column("", [words.sparkline(row.scores) for row in rows], least=_SPARKLINE),
        "best": Column("best>", [words.score(row.best) for row in rows], least=5),
        "speed": Column("tokens/s>", [_speed(row) for row in rows]),
    }
    short = _bars([(row.step, row.total_steps) for row in rows], _BAR // 3)
    return fitted(screen, columns, {"speed": None, "best": None, "bar": short},
                  {"sparkline": None}, {"epoch": None}, {"bar": None})  # fmt: skip


def evaluated_table(screen: Console, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Lay out running trials as the database knows them: from one evaluation to the next.

    Args:
        rows: each with number, setting, epoch (None before the first), epochs and scores.
    """
    done = [(row["epoch"] or 0, row["epochs"] or 1) for row in rows]
    columns = {
        "trial": Column("trial>", [str(row["number"]) for row in rows]),
        "parameters": Column("parameters", [row["setting"] for row in rows], folds=True),
        "bar": _bars(done),
        "epoch": Column("epoch>", [f"{epoch}/{epochs}" for epoch, epochs in done]),
        "score": Column("score>", [_last(row["scores"]) for row in rows]),
        "sparkline": Column("", [words.sparkline(row["scores"]) for row in rows]),
        "best": Column("best>", [words.score(max(row["scores"], default=None)) for row in rows]),
    }
    return fitted(screen, columns, {"bar": _bars(done, _BAR // 3)}, {"sparkline": None},
                  {"bar": None}, {"best": None})  # fmt: skip


def _bars(done: Sequence[tuple[int, int]], width: int = _BAR) -> Column:
    """Return bars for pairs of what is done and what there is to do."""
    bars = [
        ProgressBar(total=max(total, 1), completed=part, width=width, complete_style="cyan")
        for part, total in done
    ]
    return Column("progress", bars)


def _stage(row: RunningTrial) -> str:
    """Say where a trial is: before its first step, training, evaluating, writing artifacts."""
    if not row.total_steps:
        return "starting"
    if row.evaluating:
        return "evaluating"
    return "recording" if row.step == row.total_steps else f"{row.step}/{row.total_steps}"


def _last(scores: Sequence[float]) -> str:
    return words.score(scores[-1] if scores else None)


def _speed(row: RunningTrial) -> str:
    return f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "-"
