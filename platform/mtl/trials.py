"""The trials of a study as they are recorded: in Optuna's storage, and as runs in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, singledispatchmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import TrialState

from minbert import InputError

from .events import (
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
from .facts import set_fact
from .limits import set_constraints
from .naming import setting
from .notes import study_note, trial_note, write_note
from .preflight import Inputs, git_commit
from .replicates import REPLICATE
from .stores import Home
from .studyspec import StudySpec
from .tracking import StudyTracker
from .trialfiles import TrialFiles

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

    from minbert import Config

    from .view import View

Answer = Literal["advance", "prune", "again"] | None
Ask = Callable[..., tuple["Trial", "Config"]]

_RETRIES = 1  # times that a trial is resumed after its worker died
_ENDS = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass
class _Running:
    trial: Trial
    config: Config
    run_id: str
    progressed: bool
    pruning: bool = False


class Trials:
    """Writes down what becomes of each trial, and says what shall be done about it.

    Attributes:
        running: the trials that are with a worker now, by number.
        ended_here: trials that ended since this object was made.
        leaving: an interrupt has come; trials that stop are left for the next dispatcher.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: StudySpec,
        home: Home,
        view: View,
        inputs: Mapping[tuple[str, str], Inputs] | None = None,
    ) -> None:
        self.study, self.spec, self.home, self.view = study, spec, home, view
        self.running: dict[int, _Running] = {}
        self.ended_here = 0
        self.leaving = False
        self._inputs = inputs or {}
        self._files = TrialFiles(home, study)
        self._parent = study.user_attrs.get("parent_run_id")

    @cached_property
    def _tracker(self) -> StudyTracker:
        return StudyTracker(self.home.mlflow_uri, self.home.mlflow_artifacts)

    # ---- the study ------------------------------------------------------------------------------

    @property
    def ended(self) -> int:
        return sum(t.state.is_finished() for t in self.study.get_trials(deepcopy=False))

    def open_study(self) -> None:
        """Create the study's MLflow run, or open it again."""
        name = self.study.study_name
        key = {"mtl.study_key": self.study.user_attrs["key"]}
        tags = {
            "mtl.profile": self.spec.profile,
            "mtl.sampler": self.spec.sampler,
            "mtl.pruner": self.spec.pruner,
            "mtl.git_commit": git_commit(),
            **key,
        }
        self.study.set_user_attr("open", True)
        # A dispatcher that was killed before it noted the run's id left a run with this key.
        known = self._parent or self._tracker.find_run(name, key)
        run_id = self._tracker.open_study(name, self.spec.description, tags, known)
        if run_id != self._parent:
            self._parent = run_id
            self.study.set_user_attr("parent_run_id", run_id)
        path = self._tracker.offer_runs(run_id, self.spec.telling)
        self.study.set_user_attr("runs", path)
        write_note(self.study, study_note(self.spec.description, self._tracker.root + path))

    def close_study(self, only_if_open: bool = False) -> None:
        """Put leaderboard and figures on the study's run and end it."""
        if self._parent is None or (only_if_open and not self.study.user_attrs.get("open")):
            return
        self._tracker.record_study(self._parent, self.rows(), self.study)
        self._tracker.end(self._parent, "complete")
        self.study.set_user_attr("open", False)

    def leave(self) -> None:
        """End every run as killed; the trials stay RUNNING in Optuna, to be taken up again."""
        for number in sorted(self.running):
            self._set_aside(number)
        if self._parent is not None:
            self._tracker.end(self._parent, "killed", "interrupted")

    def _set_aside(self, number: int) -> None:
        self._tracker.end(self.running[number].run_id, "killed", "interrupted")
        del self.running[number]
        self.view.trial_ended(number, "killed", None, "interrupted")

    def rows(self) -> list[dict[str, Any]]:
        """The leaderboard."""
        from .report import leaderboard

        return leaderboard(self.study)

    def sweep(self) -> None:
        """Remove what a killed dispatcher left of trials that have ended."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                self._files.remove(trial.number)

    # ---- the beginning of a trial ---------------------------------------------------------------

    def take_up(self, ask: Ask, number: int | None, jobs: int) -> TrialJob:
        """Ask for the next trial (number None), or take up one that was left RUNNING."""
        given = () if number is None else (number,)
        trial, config = ask(self.study, self.spec, *given)
        frozen = self._frozen(trial.number)
        progressed = bool(frozen.intermediate_values)
        named = self._setting(frozen, config)
        run_id = self._open_run(frozen, trial, config, named)
        self.running[trial.number] = _Running(trial, config, run_id, progressed)
        self.view.trial_started(trial.number, named, number is not None)
        return self._job(trial.number, resumed=number is not None)

    def _setting(self, frozen: FrozenTrial, config: Config) -> str:
        """What tells this trial apart: what is searched or set by a point, and a further seed."""
        known, values = frozen.user_attrs, config.to_keys()
        keys = [*self.spec.telling, *(["train.seed"] if REPLICATE in known else [])]
        return setting({key: values[key] for key in keys}, known.get("label"))

    def _job(self, number: int, resumed: bool) -> TrialJob:
        running = self.running[number]
        return TrialJob(
            study=self.study.study_name,
            number=number,
            run_id=running.run_id,
            config=running.config.to_keys(),
            checkpoint_dir=str(self._files.checkpoints(number)),
            cache_dir=str(self.home.cache),
            tracking_uri=self.home.mlflow_uri,
            work_dir=str(self._files.work(number)),
            resumed=resumed,
        )

    def _open_run(self, frozen: FrozenTrial, trial: Trial, config: Config, named: str) -> str:
        """Reopen the trial's run; create it, and note it at the trial, if there is none."""
        run_id = frozen.user_attrs.get("mlflow_run_id")
        if run_id is not None:
            self._tracker.reopen(run_id)
            return run_id
        inputs = self._inputs.get((config.data.path, config.backbone), Inputs([], {}))
        run_id = self._tracker.create_trial_run(
            parent_run_id=self._parent,
            study=self.study.study_name,
            number=trial.number,
            params=config.to_keys(),
            setting=named,
            datasets=inputs.datasets,
            tags={"mtl.profile": self.spec.profile, "mtl.git_commit": git_commit(), **inputs.tags},
        )
        trial.set_user_attr("mlflow_run_id", run_id)
        write_note(self.study, trial_note(named, self._tracker.address(run_id)), trial._trial_id)
        return run_id

    # ---- what workers say -----------------------------------------------------------------------

    def handle(self, event: Event) -> Answer:
        """Record an event; return what the worker shall do, or that the trial starts again.

        Raises:
            InputError: a trial cannot even start, by what was given, and none has yet; or the
                machine refuses, and would refuse every other.
        """
        return self._on(event) if event.number in self.running else None

    @singledispatchmethod
    def _on(self, event: Event) -> Answer:
        raise TypeError(f"unknown event {event!r}")

    @_on.register
    def _(self, event: Progress) -> Answer:
        self.running[event.number].progressed = True
        self.view.trial_progress(
            event.number, event.step, event.total_steps, event.loss, event.tokens_per_second
        )
        return None

    @_on.register
    def _(self, event: Evaluated) -> Answer:
        running = self.running[event.number]
        running.progressed = True
        trial = running.trial
        # A resumed training says again what it said after its last checkpoint.
        if event.epoch not in self._frozen(event.number).intermediate_values:
            trial.report(event.scores["score"], event.epoch)
        self.view.trial_evaluated(event.number, event.epoch, event.scores, event.best_score)
        # After the last epoch there is nothing left to save.
        last = event.epoch >= running.config.train.epochs
        if not last and trial.should_prune():
            running.pruning = True
            return "prune"
        return "advance"

    @_on.register
    def _(self, event: Noticed) -> Answer:
        self.view.message(f"trial {event.number}: {event.text}")
        return None

    @_on.register
    def _(self, event: Finished) -> Answer:
        running = self.running[event.number]
        for key, value in event.facts.items():
            set_fact(self.study, running.trial._trial_id, key, value)
        set_constraints(running.trial, self.spec.limits, event.facts)
        for picture in event.pictures:
            self._files.hang_up(running.trial, Path(picture))
        state = "pruned" if running.pruning else "complete"
        self._end(event.number, state, event.score)
        return None

    @_on.register
    def _(self, event: Failed) -> Answer:
        if event.blocked or (event.bad_input and not self._any_progress()):
            raise InputError(event.reason)
        if event.traceback:
            self._tracker.log_text(
                self.running[event.number].run_id, event.traceback, "traceback.txt"
            )
        self._end(event.number, "failed", None, event.reason)
        return None

    @_on.register
    def _(self, event: Stopped) -> Answer:
        return self._lost(event.number, "its worker was asked to stop")

    @_on.register
    def _(self, event: Died) -> Answer:
        log = f" (see {self.home.logs})" if (event.exitcode or 0) > 0 else ""
        return self._lost(event.number, f"its worker {event.how}{log}")

    def _lost(self, number: int, reason: str) -> Answer:
        """A trial lost its worker: it is resumed once, but by who comes after an interrupt."""
        if self.leaving:
            self._set_aside(number)
            return None
        trial = self.running[number].trial
        retries = trial.user_attrs.get("retries", 0)
        if retries >= _RETRIES:
            self._end(number, "failed", None, f"{reason}, and so did the one before")
            return None
        trial.set_user_attr("retries", retries + 1)
        self.view.message(f"trial {number}: {reason}; it goes on from its checkpoint")
        del self.running[number]
        return "again"

    def _any_progress(self) -> bool:
        if any(running.progressed for running in self.running.values()):
            return True
        return any(trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False))

    # ---- the end of a trial ---------------------------------------------------------------------

    def _end(self, number: int, state: str, score: float | None, reason: str | None = None) -> None:
        """End a trial. Told to Optuna last: until then it counts as unfinished."""
        running = self.running.pop(number)
        if reason is not None:
            running.trial.set_user_attr("reason", reason)
        self._tracker.end(running.run_id, state, reason)
        value = score if state == "complete" else None
        self.study.tell(running.trial, value, state=_ENDS[state])
        self._files.remove(number)
        self.ended_here += 1
        self.view.trial_ended(number, state, score, reason)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]
