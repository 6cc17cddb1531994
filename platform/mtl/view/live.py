"""The live view: a bar for each running trial, the best so far, the time left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import words
from .base import View
from .plain import show_end

if TYPE_CHECKING:
    from mtl.dispatch import StudyResult
    from mtl.spec import StudySpec

_BAR = 24  # columns


@dataclass
class _Running:
    """What is known of a trial that runs."""

    setting: str
    resumed: bool
    step: int = 0
    total_steps: int = 0
    first_step: int | None = None  # a resumed trial does not begin at 0
    epoch: int = 0
    score: float | None = None
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
class _Progress:
    """How far the study is, in trials; a part of a trial counts as that part."""

    done: int
    total: int
    started: float = field(default_factory=time.monotonic)
    here: float = 0.0  # trials' worth of work that ended while we watched

    def left(self, running: Sequence[_Running]) -> float | None:
        """Estimate the seconds left from the pace so far; None until there is a pace."""
        work = self.here + sum(row.part_here for row in running)
        if work <= 0:
            return None
        rest = self.total - self.done - sum(row.part for row in running)
        return max(rest, 0.0) * (time.monotonic() - self.started) / work


class LiveView(View):
    """Draws on a terminal. Ended trials scroll away above; the running ones stay below."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._running: dict[int, _Running] = {}
        self._progress = _Progress(0, 0)
        self._best: tuple[float, str] | None = None
        self._title = ""
        self._demo = False
        self._live: Live | None = None

    def close(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def study_started(
        self, spec: StudySpec, study_name: str, done: int, total: int, jobs: int
    ) -> None:
        profile = f" · profile {spec.profile}" if spec.profile else ""
        self._title = f"{study_name}{profile} · {words.count(jobs, 'worker')}"
        self._demo = words.is_demo(spec.config)
        self._progress = _Progress(done, total)
        self._live = Live(
            console=self.screen, get_renderable=self._draw, refresh_per_second=4, transient=True
        )
        self._live.start()

    def trial_started(self, number: int, setting: str, resumed: bool) -> None:
        self._running[number] = _Running(setting, resumed)

    def trial_progress(
        self, number: int, step: int, total_steps: int, loss: float, tokens_per_second: float
    ) -> None:
        row = self._running[number]
        if row.first_step is None:
            row.first_step = step if row.resumed else 0
        row.step, row.total_steps = step, total_steps
        row.tokens_per_second = tokens_per_second

    def trial_evaluated(
        self, number: int, epoch: int, scores: Mapping[str, float], best_score: float
    ) -> None:
        row = self._running[number]
        row.epoch, row.score, row.best = epoch, scores["score"], best_score
        self._note_best(best_score, number, row.setting)

    def trial_ended(
        self, number: int, state: str, score: float | None, reason: str | None
    ) -> None:
        row = self._running.pop(number, _Running("", False))
        self._progress.done += state != "killed"
        self._progress.here += 1.0 - (row.first_step or 0) / max(row.total_steps, 1)
        style = {"failed": "red", "pruned": "yellow", "killed": "yellow"}.get(state, "")
        text = f"{words.ending(number, state, score, reason)}  {row.setting}"
        self.screen.print(Text(text, style=style))

    def message(self, text: str) -> None:
        self.screen.print(Text(text, style="yellow"))

    def study_ended(self, result: StudyResult, rows: Sequence[Mapping[str, Any]]) -> None:
        self.close()
        show_end(self.screen, result, rows)

    def _note_best(self, score: float, number: int, setting: str) -> None:
        if self._best is None or score > self._best[0]:
            self._best = (score, f"{score:.3f} (trial {number}, {setting})")

    def _draw(self) -> Group:
        running = dict(self._running)  # drawn from another thread
        parts: list[Any] = [Text(self._title, style="bold"), self._table(running)]
        parts.append(Text(self._summary(list(running.values()))))
        if self._demo:
            parts.append(Text(words.DEMO_NOTE, style="dim"))
        return Group(*parts)

    def _summary(self, running: Sequence[_Running]) -> str:
        progress = self._progress
        said = [f"{progress.done} of {words.count(progress.total, 'trial')} done"]
        if self._best:
            said.append(f"best so far {self._best[1]}")
        left = progress.left(running)
        said.append("estimating the time left" if left is None else f"{words.clock(left)} left")
        return " · ".join(said)

    def _table(self, running: Mapping[int, _Running]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("trial", justify="right")
        table.add_column("parameters", no_wrap=True)
        table.add_column("progress", no_wrap=True)
        for name in ("step", "epoch", "score", "best", "tokens/s"):
            table.add_column(name, justify="right", no_wrap=True)
        for number, row in running.items():
            table.add_row(str(number), row.setting, *_cells(row))
        return table


def _cells(row: _Running) -> list[Any]:
    total = max(row.total_steps, 1)
    bar = ProgressBar(total=total, completed=row.step, width=_BAR, complete_style="cyan")
    return [
        bar,
        _stage(row),
        str(row.epoch) if row.epoch else "-",
        words.score(row.score),
        words.score(row.best),
        f"{row.tokens_per_second:,.0f}" if row.tokens_per_second else "-",
    ]


def _stage(row: _Running) -> str:
    """Say where a trial is: before its first step, training, or writing its artifacts."""
    if not row.total_steps:
        return "starting"
    return "recording" if row.step == row.total_steps else f"{row.step}/{row.total_steps}"
