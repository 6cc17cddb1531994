"""The contract between a running study and whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..study.spec import StudySpec
    from ..worker.messages import Progress


@dataclass(frozen=True)
class StudyResult:
    """How a study stands when its command ends.

    Attributes:
        total: trials that it shall have; complete, pruned, failed: that have ended so.
        unfinished: trials that were begun; the same command goes on with them.
        best: number, score, params and run_id of the best complete trial.
        interrupted: by a signal; the same command goes on.
        new_trials: that have ended in this call.
        seconds: that this call took.
        waiting: runs of which MLflow, being away, does not have everything.
    """

    name: str
    total: int
    complete: int
    pruned: int
    failed: int
    unfinished: int
    best: dict[str, Any] | None
    interrupted: bool
    new_trials: int
    seconds: float
    waiting: int


class View:
    """Watches a study. Every method may be left as it is: then nothing is shown.

    All calls come from one thread, the dispatcher's. A view is a context manager, so that a
    terminal is left in order whatever happens.
    """

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back. May be called more than once."""

    def study_started(
        self, spec: StudySpec, study_name: str, done: int, total: int, workers: int, places: int
    ) -> None:
        """A study begins: ``done`` of its ``total`` trials have ended before. Each of its
        ``workers`` has ``places`` for trials."""

    def trial_started(self, number: int, label: str, resumed: bool) -> None:
        """A trial goes to a worker; ``label`` is what distinguishes it."""

    def trial_progress(self, event: Progress) -> None:
        """A trial has trained some of its steps, and perhaps evaluates now."""

    def trial_evaluated(
        self, number: int, epoch: int, scores: Mapping[str, float], best_score: float
    ) -> None:
        """A trial was evaluated on the dev sets after ``epoch``."""

    def trial_ended(self, number: int, state: str, score: float | None, reason: str | None) -> None:
        """A trial ended (complete, pruned or failed), or is left unfinished."""

    def message(self, text: str) -> None:
        """Something that a person should know, in one line."""

    def study_ended(self, result: StudyResult, rows: Sequence[Mapping[str, Any]]) -> None:
        """The study stops here; ``rows`` is its leaderboard, best first."""
