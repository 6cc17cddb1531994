"""Views without a terminal: lines that never move, or next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..common.text import count
from ..dispatch.view import View
from ..study.demo import DEMO_NOTE, is_demo
from ..trials.leaderboard import grouped, replicated
from ..trials.states import ENDED, UNFINISHED
from . import words
from .leaderboard import leaderboard_table, replicates_table

if TYPE_CHECKING:
    from rich.console import Console

    from ..dispatch.view import StudyResult
    from ..study.spec import StudySpec


class QuietView(View):
    """Shows messages only."""

    def __init__(self, screen: Console) -> None:
        self.screen = screen

    def message(self, text: str) -> None:
        self.say(text)

    def say(self, text: str) -> None:
        """Print one line as it is: no markup, no wrapping."""
        self.screen.print(text, markup=False, soft_wrap=True)


class PlainView(QuietView):
    """One line for each thing that happens, and the leaderboard at the end."""

    def study_started(
        self, spec: StudySpec, study_name: str, done: int, total: int, workers: int, places: int
    ) -> None:
        profile = f" (profile {spec.profile})" if spec.profile else ""
        self.say(
            f"study {study_name}{profile}: {count(total, 'trial')}, {done} done, "
            f"{words.at_a_time(workers, places)}"
        )
        if is_demo(spec.settings["config"]):
            self.say(DEMO_NOTE)

    def trial_started(self, number: int, label: str, resumed: bool) -> None:
        self.say(f"trial {number} {'resumed' if resumed else 'started'}: {label}")

    def trial_evaluated(
        self, number: int, epoch: int, scores: Mapping[str, float], best_score: float
    ) -> None:
        self.say(f"trial {number} epoch {epoch}: {words.scores(scores)}, best {best_score:.3f}")

    def trial_ended(self, number: int, state: str, score: float | None, reason: str | None) -> None:
        self.say(words.ending(number, state, score, reason))

    def study_ended(self, result: StudyResult, rows: Sequence[Mapping[str, Any]]) -> None:
        show_end(self.screen, result, rows)


def show_end(screen: Console, result: StudyResult, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the leaderboard and how the study stands."""
    if rows:
        screen.print(leaderboard_table(screen, rows))
    if replicated(rows):
        screen.print()
        screen.print(replicates_table(screen, grouped(rows)))
    if rows and is_demo(rows[0]["config"]):
        screen.print(DEMO_NOTE)
    counts = {state: getattr(result, state) for state in (*ENDED, UNFINISHED)}
    said = f"study {result.name}: {words.states(counts, result.total)}"
    if result.new_trials:
        said += f"; {result.new_trials} trained in {words.clock(result.seconds)}"
    screen.print(said, markup=False, soft_wrap=True)
