"""What a person sees of one training outside a study."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..common.text import count
from ..study.demo import DEMO_NOTE
from . import words
from .console import drawn_on

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from minbert import EpochReport, StepReport


class TrainingView:
    """One line for each evaluation, and on a terminal a bar above which they scroll."""

    def __init__(self, screen: Console, remark: str, quiet: bool) -> None:
        self.screen = screen
        self._remark = remark
        self._drawn = drawn_on(screen)
        self._quiet = quiet and not self._drawn
        self._bar: Progress | None = None
        self._task: Any = None
        self._preparing = screen.status("Looking at data and encoder ...")

    def __enter__(self) -> TrainingView:
        if self._drawn:
            self._preparing.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._preparing.stop()
        if self._bar:
            self._bar.stop()

    def started(self, run_id: str, total_steps: int, demo: bool) -> None:
        self._preparing.stop()
        self.say(f"run {run_id}: {count(total_steps, 'step')}, {self._remark}")
        if demo:
            self.say(DEMO_NOTE)
        if self._drawn:
            self._bar = _progress(self.screen)
            self._task = self._bar.add_task("training", total=total_steps)
            self._bar.start()

    def step(self, report: StepReport) -> None:
        if self._bar:
            self._bar.update(self._task, completed=report.step, description="training")

    def evaluating(self) -> None:
        if self._bar:
            self._bar.update(self._task, description="evaluating")

    def evaluated(self, report: EpochReport) -> None:
        best = "best" if report.is_best else f"best {report.best_score:.3f} in {report.best_epoch}"
        self.say(f"epoch {report.epoch}: {words.scores(report.scores)}, {best}")

    def say(self, text: str) -> None:
        if not self._quiet:
            self.screen.print(text, markup=False, soft_wrap=True)


def _progress(screen: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    return Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
    )
