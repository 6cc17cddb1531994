"""The live view: a bar for each running trial, the best so far, the time left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..common.text import count
from ..dispatch.view import View
from ..study.demo import DEMO_NOTE, is_demo
from ..trials.states import FAILED, PRUNED, UNFINISHED
from . import words
from .plain import show_end
from .progress import RunningTrial, StudyProgress, running_table

if TYPE_CHECKING:
    from ..dispatch.view import StudyResult
    from ..study.spec import StudySpec
    from ..worker.messages import Progress


_AROUND = 7  # lines of a screen that are no running trial's


class LiveView(View):
    """Draws on a terminal. Ended trials scroll away above; the running ones stay below."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen
        self._running: dict[int, RunningTrial] = {}
        self._progress = StudyProgress(0, 0)
        self._best: tuple[float, str] | None = None
        self._title = ""
        self._demo = False
        self._live: Live | None = None
        self._preparing = screen.status("Looking at data, encoder and databases ...")

    def __enter__(self) -> LiveView:
        self._preparing.start()
        return self

    def close(self) -> None:
        self._preparing.stop()
        if self._live:
            self._live.stop()
            self._live = None

    def study_started(
        self, spec: StudySpec, study_name: str, done: int, total: int, workers: int, places: int
    ) -> None:
        profile = f" · profile {spec.profile}" if spec.profile else ""
        self._title = f"{study_name}{profile} · {words.at_a_time(workers, places)}"
        self._demo = is_demo(spec.settings["config"])
        self._progress = StudyProgress(done, total)
        self._preparing.stop()
        self._live = Live(
            console=self.screen, get_renderable=self._draw, refresh_per_second=4, transient=True
        )
        self._live.start()

    def trial_started(self, number: int, label: str, resumed: bool) -> None:
        self._running[number] = RunningTrial(label, resumed)

    def trial_progress(self, event: Progress) -> None:
        row = self._running[event.number]
        if row.first_step is None:
            row.first_step = event.step if row.resumed else 0
        row.step, row.total_steps, row.evaluating = event.step, event.total_steps, event.evaluating
        row.tokens_per_second = event.tokens_per_second

    def trial_evaluated(
        self, number: int, epoch: int, scores: Mapping[str, float], best_score: float
    ) -> None:
        row = self._running[number]
        row.epoch, row.best, row.evaluating = epoch, best_score, False
        row.scores.append(scores["score"])
        self._note_best(best_score, number, row.label)

    def trial_ended(self, number: int, state: str, score: float | None, reason: str | None) -> None:
        row = self._running.pop(number, RunningTrial("", False))
        self._progress.done += state != UNFINISHED
        self._progress.here += 1.0 - (row.first_step or 0) / max(row.total_steps, 1)
        style = {FAILED: "red", PRUNED: "yellow", UNFINISHED: "yellow"}.get(state, "")
        text = f"{words.ending(number, state, score, reason)}  {row.label}"
        self.screen.print(Text(text, style=style))

    def message(self, text: str) -> None:
        self.screen.print(Text(text, style="yellow"))

    def study_ended(self, result: StudyResult, rows: Sequence[Mapping[str, Any]]) -> None:
        self.close()
        show_end(self.screen, result, rows)

    def _note_best(self, score: float, number: int, label: str) -> None:
        if self._best is None or score > self._best[0]:
            self._best = (score, f"{score:.3f} (trial {number}, {label})")

    def _draw(self) -> Group:
        running = dict(self._running)  # drawn from another thread
        # What is below the last line of the screen is not seen, and the summary stands there.
        shown = dict(islice(running.items(), max(1, self.screen.size.height - _AROUND)))
        table = running_table(self.screen, shown)
        parts: list[Any] = [Text(self._title, style="bold"), table]
        if more := len(running) - len(shown):
            parts.append(Text(f"and {count(more, 'further trial')}", style="dim"))
        parts.append(Text(self._summary(list(running.values()))))
        if self._demo:
            parts.append(Text(DEMO_NOTE, style="dim"))
        return Group(*parts)

    def _summary(self, running: Sequence[RunningTrial]) -> str:
        progress = self._progress
        total = max(progress.total, progress.done + len(running))  # more may be queued meanwhile
        said = [f"{progress.done} of {count(total, 'trial')} done"]
        if self._best:
            said.append(f"best so far {self._best[1]}")
        left = progress.left(running)
        said.append("estimating the time left" if left is None else f"{words.clock(left)} left")
        return " · ".join(said)
