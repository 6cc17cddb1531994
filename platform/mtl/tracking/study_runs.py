"""The runs of a study and of its trials: opened before the work, ended after it, in both stores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.text import count
from ..storage.home import Home
from ..study.spec import StudySpec
from ..trials.attributes import attributes_of, late_runs, run_of, set_attribute
from ..trials.origin import TOLD
from ..trials.states import COMPLETE, FROM_OPTUNA, INTERRUPTED, KILLED
from . import tag_keys
from .inputs import Inputs, git_commit
from .noting import note_own_run, note_run, number_of
from .outbox import Outbox
from .refusals import Hindrance
from .restoring import record_anew
from .study_tracker import StudyTracker

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from minbert import Config


class StudyRuns:
    """What MLflow is told of a study.

    Args:
        inputs: what each pair of data folder and backbone consists of.
        should_stop: when it is true, MLflow is not waited for any longer.

    Attributes:
        key: tells the study from others of its name.

    Raises:
        InputError: MLflow's store cannot be opened.
    """

    def __init__(
        self,
        study: optuna.Study,
        spec: StudySpec,
        home: Home,
        inputs: Mapping[tuple[str, str], Inputs],
        should_stop: Callable[[], bool],
    ) -> None:
        self._study, self._spec, self._inputs, self._should_stop = study, spec, inputs, should_stop
        self._home = home
        self.key: str = study.user_attrs["key"]
        self.tracker = StudyTracker(home)
        self._own = self.tracker.study_box(self.key)
        self._boxes: dict[int, Outbox] = {}  # of trials that run, or that MLflow has not whole
        self._ended: set[int] = set()
        self._noted: dict[int, str] = {}  # the ids of runs that are noted at trials
        self._nameless: set[int] = set()  # of those that run: MLflow has given them no id yet
        self._late: dict[int, str] | None = None  # read when it is needed first: rarely
        self._was_away = False
        self._told: set[Path] = set()
        self._said: list[str] = []  # to be told

    # ---- the study's own ------------------------------------------------------------------------

    @property
    def parent(self) -> str | None:
        """The id of the study's run."""
        return self._study.user_attrs.get("parent_run_id")

    def open_study(self) -> None:
        """Create the study's run, or open it again.

        Raises:
            InputError: MLflow will not have it.
        """
        self._take_up_what_is_left()
        tags = {
            tag_keys.PROFILE: self._spec.profile,
            tag_keys.SAMPLER: self._spec.sampler,
            tag_keys.PRUNER: self._spec.pruner,
            tag_keys.GIT_COMMIT: git_commit(),
        }
        self._study.set_user_attr("open", True)
        name, about = self._study.study_name, self._spec.description
        self.tracker.open_study(self._own, name, about, tags, self.parent)
        self.tracker.offer_runs(self._own, self._spec.distinguishing_keys)
        self.tracker.wait_for_run(self._own, self._should_stop)
        self.tracker.refuse_blocked()
        self._reconcile_all()

    def lost(self) -> bool:
        """Whether MLflow has lost the run of a study that was closed; it is opened anew then."""
        if self.parent is None or self._own.begun or self.tracker.knows(self.parent) is not False:
            return False
        self.open_study()
        return True

    def close_study(self, rows: Callable[[], list[dict[str, Any]]]) -> None:
        """Put leaderboard and figures on the study's run, end it, and send everything."""
        self.tracker.record_study(self._own, rows(), self._study)
        self.tracker.end(self._own, COMPLETE)
        self._study.set_user_attr("open", False)
        self.send_all()

    def send_all(self) -> None:
        """Send what waits, of earlier lives, too, unless MLflow is away."""
        self._take_up_what_is_left()
        self.tracker.uploader.watch(self._own)
        self.tracker.drain([self._own, *self._boxes.values()], self._should_stop)
        self._reconcile_all()

    def leave(self, noted: bool = True) -> None:
        """End the study's run as killed; the same command goes on with it.

        Args:
            noted: what MLflow has done is noted in the database, which is there.
        """
        if self._own.begun or self.parent is not None:
            self.tracker.end(self._own, KILLED, INTERRUPTED)
        self.tracker.uploader.wait([self._own, *self._boxes.values()], seconds=0.5)
        if noted:
            self._reconcile_all()

    def _take_up_what_is_left(self) -> None:
        """Watch what earlier dispatchers recorded of trials that have ended."""
        trials = self._study.get_trials(deepcopy=False)
        for box in self.tracker.left_over(self.key):
            number = number_of(box)
            if number is None or number in self._boxes or number >= len(trials):
                continue
            if trials[number].state.is_finished():
                if not box.closed:
                    scored = "scores" in attributes_of(trials[number])
                    state = FROM_OPTUNA[trials[number].state.name]
                    self.tracker.end(box, state, None if scored else TOLD)
                self._boxes[number] = box
                self._ended.add(number)
                self.tracker.uploader.watch(box)

    # ---- the trials' ----------------------------------------------------------------------------

    def open_trial(self, frozen: FrozenTrial, config: Config, label: str) -> Outbox:
        """Create a trial's run and note its id, or open the one that it has.

        Raises:
            InputError: MLflow will not have it.
        """
        number = frozen.number
        box = self._boxes[number] = self.tracker.trial_box(self.key, number)
        self._ended.discard(number)
        if number not in self._noted:
            self._nameless.add(number)
        known = run_of(frozen, {})
        if box.begun:
            self.tracker.reopen(box, known)
        else:
            set_attribute(self._study, frozen._trial_id, "setting", label)
            self._create(box, number, config, label, known)
        self.tracker.wait_for_run(box, self._should_stop)
        self.reconcile()
        return box

    def hand_over(self, number: int) -> None:
        """Leave the sending to the worker that trains the trial."""
        self.tracker.uploader.forget(self._boxes[number])

    def _create(
        self, box: Outbox, number: int, config: Config, label: str, run_id: str | None
    ) -> None:
        inputs = self._inputs.get((config.data.path, config.backbone), Inputs([], {}))
        self.tracker.open_trial(
            box,
            parent=self._own,
            run_id=run_id,
            study=self._study.study_name,
            number=number,
            params=config.to_keys(),
            label=label,
            datasets=inputs.datasets,
            tags={
                tag_keys.PROFILE: self._spec.profile,
                tag_keys.GIT_COMMIT: git_commit(),
                **inputs.tags,
            },
        )

    def log_text(self, number: int, text: str, path: str) -> None:
        """Keep a text as an artifact of a trial's run."""
        self.tracker.log_text(self._boxes[number], text, path)

    def has(self, number: int) -> bool:
        """Whether a trial's run was opened here, or MLflow has not all of it."""
        return number in self._boxes

    def has_ended(self, number: int) -> bool:
        """Whether a trial's run was ended here, for good."""
        return number in self._ended

    def end(self, number: int, state: str, reason: str | None = None) -> None:
        """End a trial's run, once; ``killed`` if it is to be taken up again."""
        if state == KILLED:
            self._ended.discard(number)
        elif number in self._ended:
            return
        self.tracker.end(self._boxes[number], state, reason)
        self._nameless.discard(number)  # its outbox is watched again
        if state != KILLED:
            self._ended.add(number)

    # ---- what MLflow has of it ------------------------------------------------------------------

    def reconcile(self) -> None:
        """Note the ids that MLflow has given, and remove what it has whole.

        While MLflow is away, thousands of outboxes may wait: only those are looked at whose state
        can have changed.
        """
        touched = {number_of(Outbox(folder)) for folder in self.tracker.uploader.touched()}
        # What a worker sends, this process' uploader does not hear of.
        self._reconcile(self._boxes.keys() & (touched | self._nameless))

    def _reconcile_all(self) -> None:
        self._reconcile(list(self._boxes))

    def _reconcile(self, numbers: Iterable[int]) -> None:
        self._reconcile_own()
        for number in numbers:
            box = self._boxes[number]
            self._note(number, box)
            if number in self._ended and number in self._noted and box.empty:
                self.tracker.uploader.forget(box)
                if box.remove():
                    del self._boxes[number]

    def _note(self, number: int, box: Outbox) -> None:
        run = box.run
        if run is None or self._noted.get(number) == run.run_id:
            return
        if run.experiment_id is not None:
            if self._late is None and number in self._ended:
                self._late = late_runs(self._study)
            note_run(self._study, number, run, self.tracker.address(run), self._late or {})
            self._noted[number] = run.run_id
            self._nameless.discard(number)

    def _reconcile_own(self) -> None:
        run = self._own.run
        if run is None or run.experiment_id is None:
            return
        before = self.parent
        note_own_run(self._study, run, self.tracker)
        if before in self._own.former:
            self._restore_ended(run.run_id)
        if self._own.closed and self._own.empty and not self._study.user_attrs.get("open"):
            self.tracker.uploader.forget(self._own)
            self._own.remove()

    def _restore_ended(self, parent: str) -> None:
        """See to the runs of ended trials, after the study's own was made anew."""
        late = self._late = late_runs(self._study)
        name, ended = self._study.study_name, 0
        for trial in self._study.get_trials(deepcopy=False):
            run_id = run_of(trial, late)
            if not trial.state.is_finished() or trial.number in self._boxes or run_id is None:
                continue
            self._boxes[trial.number] = record_anew(
                self.tracker, name, self._own, trial, run_id, self._home
            )
            self._ended.add(trial.number)
            self._noted.pop(trial.number, None)
            ended += 1
        self._said.append(
            f"the study's run in MLflow is a new one, {parent}. Of {count(ended, 'ended trial')}, "
            "runs that MLflow has lost, too, are made anew, with their scores and files; their "
            "curves were nowhere else"
        )

    @property
    def waiting(self) -> int:
        """How many runs MLflow does not have whole."""
        return sum(not box.empty for box in [self._own, *self._boxes.values()])

    def notices(self) -> list[str]:
        """Say what has changed between MLflow and us since this was asked last."""
        uploader = self.tracker.uploader
        new = {box: why for box, why in uploader.refused.items() if box not in self._told}
        self._told.update(new)
        said = [f"MLflow will not take what waits in {box}: {why}" for box, why in new.items()]
        said += [*uploader.notices(), *self._said]
        self._said.clear()
        if (uploader.hindrance is not None) != self._was_away:
            self._was_away = uploader.hindrance is not None
            said.append(self._word(uploader.hindrance))
        return said

    def _word(self, hindrance: Hindrance | None) -> str:
        if hindrance is None:
            return "MLflow answers again: what waited for it is being sent"
        return (
            f"{hindrance.words}: training goes on, and what it records waits in "
            f"{self._own.folder.parent}"
        )
