"""What becomes of a study's trials, as it is recorded: in Optuna's storage, and as MLflow runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna.exceptions import UpdateFinishedTrialError

from minbert import InputError

from ..storage.home import Home
from ..study.spec import StudySpec
from ..tracking.inputs import Inputs
from ..tracking.study_runs import StudyRuns
from ..trials.attributes import attributes_of, set_attribute, trial_of
from ..trials.constraints import set_constraints
from ..trials.origin import QUEUED
from ..trials.pruning import should_prune
from ..trials.queued import ImpossibleError
from ..trials.states import (
    COMPLETE,
    FAILED,
    PRUNED,
)
from ..trials.tally import Tally
from ..worker.messages import (
    ENDINGS,
    SILENCE,
    Died,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noticed,
    Progress,
    Stopped,
    TrialJob,
)
from .endings import Endings, Running
from .jobs import Jobs, label_of
from .outsiders import StudyGoneError, is_gone
from .trial_files import TrialFiles, report_deferred

if TYPE_CHECKING:
    import optuna
    from optuna.trial import Trial

    from minbert import Config

    from .view import View

Answer = Literal["advance", "prune", "stop", "again", "keep"] | None
Ask = Callable[..., tuple["Trial", "Config"] | None]


class TrialLifecycle:
    """Writes down what becomes of each trial, and says what shall be done about it.

    What raised since the database was away can be called again, with the same arguments: it comes
    to the same as if it had been called once.

    Attributes:
        running: the trials that are with a worker now, by number.
        leaving: an interrupt has come; trials that stop are left for the next dispatcher.
        tally: of the study's trials, as they were when it was last updated.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: StudySpec,
        home: Home,
        view: View,
        inputs: Mapping[tuple[str, str], Inputs] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.study, self.spec, self.home, self.view = study, spec, home, view
        self.running: dict[int, Running] = {}
        self.leaving = False
        self.tally = Tally(study)
        self.runs = StudyRuns(study, spec, home, inputs or {}, should_stop)
        self._files = TrialFiles(home, study)
        self._jobs = Jobs(study, home, self._files)
        self._endings = Endings(study, self.runs, self._files, view, self.running)

    @property
    def ended_here(self) -> int:
        """How many trials ended since this object was made."""
        return self._endings.count

    # ---- the study ------------------------------------------------------------------------------

    def close_study(self) -> None:
        """End the study's run, with leaderboard and figures, if it has not ended yet."""
        if self.study.user_attrs.get("open") or self.runs.lost():
            self.runs.close_study(self.rows)
        else:
            self.runs.send_all()

    def leave(self, noted: bool = True) -> None:
        """End every run as killed; the trials stay RUNNING in Optuna, to be taken up again.

        Args:
            noted: the database is there, and is told what MLflow has done.
        """
        for number in sorted(self.running):
            if noted and self.running[number].told:
                self._endings.end_as_told(number)
            else:
                self._endings.set_aside(number)
        self.runs.leave(noted)

    def poll(self) -> None:
        """Note what MLflow has done in the meantime, and say what the user should know."""
        self.runs.reconcile()
        for notice in self.runs.notices():
            self.view.message(notice)

    def rows(self) -> list[dict[str, Any]]:
        """The leaderboard."""
        from ..trials.leaderboard import leaderboard

        return leaderboard(self.study)

    def sweep(self) -> None:
        """Remove what a killed dispatcher left of trials that have ended."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._files.remove(trial.number)

    # ---- the beginning of a trial ---------------------------------------------------------------

    def take_up(self, ask: Ask, number: int | None) -> TrialJob | None:
        """Ask for the next trial (number None), or take up one that was left RUNNING.

        Returns:
            None where there is nothing to train: what a person has queued is gone or impossible,
            or somebody else has told the trial.
        """
        if number is not None and self._endings.told(number):
            self._endings.end_as_told(number)
            return None
        try:
            return self._take_up(ask, number)
        except ImpossibleError as error:
            self._endings.refuse(error.number, str(error))
        except UpdateFinishedTrialError:  # told a moment ago; its run is ended with the study's
            pass
        return None

    def _take_up(self, ask: Ask, number: int | None) -> TrialJob | None:
        asked = ask(self.study, self.spec, self.tally if number is None else number)
        if asked is None:
            return None
        trial, config = asked
        frozen = trial_of(self.study, trial.number)
        if number is None:
            self._files.clear(trial.number)  # of a study of this name that was deleted
        report_deferred(trial, self._files)
        progressed = bool(frozen.intermediate_values)
        label = label_of(self.spec, frozen, config)
        outbox = self.runs.open_trial(frozen, config, label)
        self.running[trial.number] = Running(trial, config, outbox, progressed)
        self.view.trial_started(trial.number, label, number is not None)
        self.runs.hand_over(trial.number)
        return self._jobs.job(frozen, config, outbox, resumed=number is not None)

    # ---- while the database is away -------------------------------------------------------------

    def while_away(self, event: Event) -> Answer:
        """Do about an event what needs no database; ``keep`` it where that is nothing.

        A trial that no pruner judges need not wait: its score is kept in a file meanwhile.
        """
        if isinstance(event, Progress | Noticed):
            return self.handle(event)
        if not isinstance(event, Evaluated) or event.number not in self.running:
            return "keep"
        if self.spec.pruner != "none":
            return "keep"
        self._files.defer(event.number, event.epoch, event.scores["score"])
        self._evaluated(event)
        return "advance"

    def catch_up(self) -> None:
        """Report the scores that were kept while the database was away."""
        for running in self.running.values():
            report_deferred(running.trial, self._files)

    # ---- what workers say -----------------------------------------------------------------------

    def handle(self, event: Event) -> Answer:
        """Record an event; return what the worker shall do, or that the trial starts again.

        Raises:
            InputError: a trial cannot even start, by what was given, and none has yet; or the
                machine refuses, and would refuse every other.
        """
        running = self.running.get(event.number)
        if running is None:
            return None
        if not running.told:
            try:
                return self._on(event)
            except UpdateFinishedTrialError:
                running.told = True
        if isinstance(event, ENDINGS):
            self._endings.end_as_told(event.number)
            return None
        return "stop"

    @singledispatchmethod
    def _on(self, event: Event) -> Answer:
        raise TypeError(f"unknown event {event!r}")

    @_on.register
    def _(self, event: Progress) -> Answer:
        running = self.running[event.number]
        running.progressed = running.begun = True
        self.view.trial_progress(event)
        return None

    @_on.register
    def _(self, event: Evaluated) -> Answer:
        running = self.running[event.number]
        epochs = running.config.train.epochs
        score = event.scores["score"]
        running.pruning = should_prune(running.trial, event.epoch, score, epochs)
        self._evaluated(event)
        return "prune" if running.pruning else "advance"

    def _evaluated(self, event: Evaluated) -> None:
        running = self.running[event.number]
        running.progressed = running.begun = True
        self.view.trial_evaluated(event.number, event.epoch, event.scores, event.best_score)

    @_on.register
    def _(self, event: Noticed) -> Answer:
        self.view.message(f"trial {event.number}: {event.text}")
        return None

    @_on.register
    def _(self, event: Finished) -> Answer:
        running = self.running[event.number]
        if not self._endings.told(event.number):
            for key, value in event.attributes.items():
                set_attribute(self.study, running.trial._trial_id, key, value)
            set_constraints(running.trial, self.spec.limits, event.attributes)
            for picture in event.pictures:
                self._files.attach_picture(running.trial, Path(picture))
        state = PRUNED if running.pruning else COMPLETE
        self._endings.end(event.number, state, event.score)
        return None

    @_on.register
    def _(self, event: Failed) -> Answer:
        if event.blocked or (event.bad_input and not self._alone_in_it(event.number)):
            raise InputError(event.reason)
        if event.memory:
            return self._lost(event.number, event.reason, event.beside)
        if event.traceback:
            self.runs.log_text(event.number, event.traceback, "traceback.txt")
        self._endings.end(event.number, FAILED, None, event.reason)
        return None

    @_on.register
    def _(self, event: Stopped) -> Answer:
        if event.alone:
            return self._left_alone(event.number)
        if event.crowded:
            return self._by_no_fault(
                event.number, "its worker ends, since another trial in it lacked memory"
            )
        return self._lost(event.number, "its worker was asked to stop")

    @_on.register
    def _(self, event: Died) -> Answer:
        if event.alone:
            return self._left_alone(event.number)
        log = f" (see {self.home.logs})" if (event.exitcode or 0) > 0 else ""
        return self._lost(event.number, f"its {event.place} {event.how}{log}", event.beside)

    def _lost(self, number: int, reason: str, beside: int = 0) -> Answer:
        """A trial lost its worker. After an interrupt it is left to who comes."""
        if self.leaving:
            self._endings.set_aside(number)
            return None
        return "again" if self._endings.survives(number, reason, beside) else None

    def _left_alone(self, number: int) -> Answer:
        return self._by_no_fault(
            number,
            f"its worker had heard nothing of this command for {SILENCE:.0f} s, as when that is "
            "suspended, and has left",
        )

    def _by_no_fault(self, number: int, reason: str) -> Answer:
        """A trial has left its worker for what is no fault of the trial, and of no account."""
        if self.leaving:
            self._endings.set_aside(number)
            return None
        self._endings.move_on(number, reason)
        return "again"

    def _alone_in_it(self, number: int) -> bool:
        """Whether bad input is one trial's: a person has queued it, or others could be trained."""
        return QUEUED in attributes_of(trial_of(self.study, number)) or self._any_progress()

    def _any_progress(self) -> bool:
        if any(running.progressed for running in self.running.values()):
            return True
        self.tally.update()
        return self.tally.ended > 0

    # ---- what others do to the study ------------------------------------------------------------

    def told_by_others(self) -> list[int]:
        """Return the running trials that somebody else has told since this was asked last.

        Raises:
            StudyGoneError: the study was deleted or renamed.
        """
        if self.gone:
            raise StudyGoneError(self.study.study_name)
        self.tally.update()
        told = [
            number
            for number, running in self.running.items()
            if not running.told and self.tally.trial(number).state.is_finished()
        ]
        for number in told:
            self.running[number].told = True
        return told

    @property
    def gone(self) -> bool:
        """Whether the study was deleted or renamed with Optuna's own interface."""
        return is_gone(self.study, self.runs.key)
