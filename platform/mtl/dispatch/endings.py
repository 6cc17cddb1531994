"""How trials end: in Optuna's storage, in MLflow, and in the files that a home keeps of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from ..trials.attributes import attributes_of, set_attribute, trial_of
from ..trials.origin import TOLD
from ..trials.states import (
    COMPLETE,
    FAILED,
    FROM_OPTUNA,
    INTERRUPTED,
    KILLED,
    TO_OPTUNA,
    UNFINISHED,
)

if TYPE_CHECKING:
    import optuna
    from optuna.trial import Trial

    from minbert import Config

    from ..tracking.outbox import Outbox
    from ..tracking.study_runs import StudyRuns
    from .trial_files import TrialFiles
    from .view import View


@dataclass
class Running:
    """A trial that is with a worker.

    Attributes:
        progressed: it has trained, in this life or before.
        begun: it has in this life, so there is something that a checkpoint would save.
        pruning: its worker was told to end it as pruned.
        told: somebody else has told Optuna how it ended, and so it ends.
        retries: counted with the loss that is being written down.
        apart: that loss shows that it must go on in a worker for itself.
    """

    trial: Trial
    config: Config
    outbox: Outbox
    progressed: bool
    begun: bool = False
    pruning: bool = False
    told: bool = False
    retries: int | None = None
    apart: bool = False


class Endings:
    """Ends trials, each once, whoever is asked twice.

    Args:
        running: the trials that are with a worker, by number; those that end are taken out.

    Attributes:
        count: how many trials ended here.
    """

    def __init__(
        self,
        study: optuna.Study,
        runs: StudyRuns,
        files: TrialFiles,
        view: View,
        running: dict[int, Running],
    ) -> None:
        self._study, self._runs, self._files, self._view = study, runs, files, view
        self._running = running
        self.count = 0

    def end(self, number: int, state: str, score: float | None, reason: str | None = None) -> None:
        """End a trial. Told to Optuna last: until then it counts as unfinished."""
        trial = self._running[number].trial
        if self.told(number):
            if not self._runs.has_ended(number):
                self.end_as_told(number)
                return
        else:
            if reason is not None:
                trial.set_user_attr("reason", reason)
            self._runs.end(number, state, reason)
            value = score if state == COMPLETE else None
            self._study.tell(trial, value, state=TrialState[TO_OPTUNA[state]])
        del self._running[number]
        self._over(number, state, score, reason)

    def told(self, number: int) -> bool:
        """Whether a trial has ended: it was told before and only the answer was lost, or somebody
        else has told it."""
        return trial_of(self._study, number).state.is_finished()

    def end_as_told(self, number: int) -> None:
        """End the run of a trial that somebody else has told; the trial stays as it was told."""
        frozen = trial_of(self._study, number)
        state = FROM_OPTUNA[frozen.state.name]
        if self._runs.has(number):
            self._runs.end(number, state, TOLD)
        self._running.pop(number, None)
        self._over(number, state, frozen.value, TOLD)

    def refuse(self, number: int, reason: str) -> None:
        """Fail a trial that cannot even be begun: it has no run."""
        if not self.told(number):
            trial = trial_of(self._study, number)
            set_attribute(self._study, trial._trial_id, "reason", reason)
            self._study.tell(number, state=TrialState.FAIL)
        self._over(number, FAILED, None, reason)

    def set_aside(self, number: int) -> None:
        """End a trial's run as killed; the trial stays RUNNING in Optuna, to be taken up again."""
        self._runs.end(number, KILLED, INTERRUPTED)
        del self._running[number]
        self._view.trial_ended(number, UNFINISHED, None, "it will be continued")

    # ---- workers that are lost ------------------------------------------------------------------

    def survives(self, number: int, reason: str, beside: int = 0) -> bool:
        """Say whether a trial that lost its worker goes on, from its checkpoint. It ends if that is
        where it was lost before: it would be lost there again.

        Args:
            beside: trials that were in the worker, too. It may be one of them that ends workers,
                so in their company it does not end: it goes on in a worker for itself.
        """
        running, here = self._running[number], self._files.checkpointed(number)
        if running.retries is None:
            known = attributes_of(trial_of(self._study, number))
            again = known.get("lost_at") == here
            if again and not beside:
                self.end(number, FAILED, None, f"{reason}, at the same place as before")
                return False
            running.apart = again
            running.retries = known.get("retries", 0) + 1
        set_attribute(self._study, running.trial._trial_id, "lost_at", here)
        running.trial.set_user_attr("retries", running.retries)
        if running.apart:
            set_attribute(self._study, running.trial._trial_id, "apart", 1)
        where = ", in a worker for itself" if running.apart else ""
        self._view.message(f"trial {number}: {reason}; it goes on from its checkpoint{where}")
        del self._running[number]
        return True

    def move_on(self, number: int, reason: str) -> None:
        """Let a trial go on that has left its worker by no fault of its own."""
        self._view.message(f"trial {number}: {reason}; the trial goes on in a new one")
        del self._running[number]

    def _over(self, number: int, state: str, score: float | None, reason: str | None) -> None:
        self._files.remove(number)
        self.count += 1
        self._view.trial_ended(number, state, score, reason)
