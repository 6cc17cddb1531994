"""One tracked training outside any study: what ``mtl train`` does."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minbert.common.awake import awake
from minbert.errors import DivergedError, InputError, TrainingStopped

from ..common.faults import explain
from ..common.signals import Interrupts
from ..storage.home import EXPERIMENT
from ..study.demo import is_demo
from ..tracking import tag_keys
from ..trials.states import COMPLETE, FAILED, INTERRUPTED, KILLED

if TYPE_CHECKING:
    from minbert import Config, EpochReport, StepReport

    from ..storage.home import Home
    from ..tracking.inputs import Inputs
    from ..tracking.outbox import Outbox
    from ..tracking.study_tracker import StudyTracker

_CONFIG = "config.json"


class Watcher(Protocol):
    """Shows a training while it runs."""

    def started(self, run_id: str, total_steps: int, demo: bool) -> None:
        """The run exists and the training begins."""

    def step(self, report: StepReport) -> None:
        """One step was trained."""

    def evaluating(self) -> None:
        """An evaluation begins."""

    def evaluated(self, report: EpochReport) -> None:
        """The dev sets were evaluated."""


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        run_id: its run in MLflow.
        profile: the name of the recipe that it began with.
        state: complete, failed or killed.
        scores: of the best epoch; empty if it did not complete.
        minutes: this time's share, earlier ones of a resumed training are not counted.
        reason: why it failed.
        waiting: the folder where some of it waits for MLflow, which does not take it.
        because: why it does not.
        notices: what else a person should know of the run in MLflow.
    """

    run_id: str
    profile: str | None
    state: str
    scores: dict[str, float]
    best_epoch: int | None
    minutes: float
    reason: str | None = None
    waiting: str | None = None
    because: str | None = None
    notices: list[str] = field(default_factory=list)


def train_once(
    config: Config, home: Home, watcher: Watcher, *, profile: str | None, resume: str | None
) -> TrainingResult:
    """Train one configuration and record it as a run of the experiment ``train``.

    An interrupt (SIGINT, SIGTERM) writes a checkpoint and ends the run as killed; ``resume`` with
    the run's id goes on from there, bit for bit on a CPU with as many threads.

    Args:
        profile: the recipe's name, for a tag. resume: the id of an interrupted training's run.

    Raises:
        InputError: data or weights cannot be used; nothing is recorded then. Or the machine
            refuses, a full disk say: the line says how to go on.
    """
    import minbert

    from ..tracking.asking import ask_server
    from ..tracking.study_tracker import StudyTracker
    from .preflight import read_inputs

    inputs = read_inputs(config, home)
    ask_server(home, EXPERIMENT)
    total = minbert.total_steps(config, home.cache)
    with closing(StudyTracker(home)) as tracker:
        box = _box(home, resume)
        run_id = _open_run(tracker, box, config, profile, inputs, resume)
        folder = home.checkpoints / EXPERIMENT / run_id
        with _alone(folder):
            _remember(folder, config)
            watcher.started(run_id, total, demo=is_demo(config.to_keys()))
            began = awake()
            state, best, reason = _outcome(config, home, folder, box, tracker, watcher)
            tracker.end(box, state, reason)
            sent = tracker.drain([box], lambda: False)
            hindrance = tracker.uploader.hindrance
            # Another, if MLflow has lost the first; checkpoints keep the name of that.
            recorded = box.run.run_id if box.run and state != KILLED else run_id
            if state == COMPLETE:
                shutil.rmtree(folder)
        folder.with_name(f"{run_id}.lock").unlink(missing_ok=True)
        if sent and state != KILLED:
            box.remove()
    scores, epoch = (best.scores, best.epoch) if best else ({}, None)
    waiting = None if sent else str(home.spool)
    because = None if sent else hindrance.words if hindrance else box.reason
    return TrainingResult(
        recorded, profile, state, scores, epoch, _minutes_since(began), reason, waiting, because,
        tracker.uploader.notices(),
    )  # fmt: skip


def _box(home: Home, resume: str | None) -> Outbox:
    """Return the outbox of a new training, or the one that a training to be resumed has."""
    from ..tracking.outbox import Outbox, outboxes

    if resume is None:
        return Outbox(home.spool / f"{EXPERIMENT}-{uuid.uuid4().hex}")
    for box in outboxes(home.spool):
        if resume in (box.folder.name, box.run and box.run.run_id, *box.former):
            return box
    return Outbox(home.spool / f"{EXPERIMENT}-{resume}")


def _open_run(
    tracker: StudyTracker,
    box: Outbox,
    config: Config,
    profile: str | None,
    inputs: Inputs,
    resume: str | None,
) -> str:
    """Create the run, or open it again; return what the training is called: the run's id, or the
    outbox' name where MLflow is away."""
    from ..tracking.inputs import git_commit

    if resume is None:
        tags = {tag_keys.PROFILE: profile, tag_keys.GIT_COMMIT: git_commit(), **inputs.tags}
        tracker.open_trial(
            box, study=EXPERIMENT, number=None, params=config.to_keys(), tags=tags,
            datasets=inputs.datasets,
        )  # fmt: skip
        run = tracker.wait_for_run(box)
        tracker.refuse_blocked()
        return run.run_id if run else box.folder.name
    tracker.reopen(box, None if box.begun else resume)
    tracker.wait_for_run(box)
    tracker.refuse_blocked()
    return resume


def _outcome(
    config: Config,
    home: Home,
    folder: Path,
    box: Outbox,
    tracker: StudyTracker,
    watcher: Watcher,
) -> tuple[str, EpochReport | None, str | None]:
    """Train; return the state in which that ended, the best epoch and a reason."""
    try:
        return COMPLETE, _train(config, home, folder, box, watcher), None
    except TrainingStopped:
        return KILLED, None, INTERRUPTED
    except DivergedError as error:
        return FAILED, None, str(error)
    except BaseException as error:
        if fault := explain(error, home.path, f"mtl train --resume {folder.name}"):
            raise InputError(fault) from error  # the run stays open: the training can go on
        tracker.end(box, FAILED, f"{type(error).__name__}: {error}")
        tracker.drain([box], lambda: False)
        raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process from training the same.

    Raises:
        InputError: one does.
    """
    from filelock import FileLock, Timeout

    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"training {folder.name} is running in another process (it holds {folder}.lock); "
            "wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _train(config: Config, home: Home, folder: Path, box: Outbox, watcher: Watcher) -> EpochReport:
    import minbert

    from ..tracking.run_recorder import RunRecorder

    recorder = RunRecorder(box)

    def on_step(report: StepReport) -> None:
        recorder.on_step(report)
        watcher.step(report)

    last_words = f"stopped at once; to go on: mtl train --resume {folder.name}"
    with Interrupts(last_words) as interrupts:
        training = minbert.train(
            config,
            cache_dir=home.cache,
            checkpoint_dir=folder,
            on_step=on_step,
            on_evaluation=watcher.evaluating,
            should_stop=lambda: interrupts.asked,
        )
        # Closed here: what goes wrong when it is closed later, by chance, is only printed.
        with closing(training) as reports:
            for report in reports:
                recorder.on_epoch(report)
                watcher.evaluated(report)
        return recorder.finish(config, folder, home.cache, lambda: interrupts.asked).best


def _minutes_since(began: float) -> float:
    return (awake() - began) / 60


def _remember(folder: Path, config: Config) -> None:
    """Keep the configuration beside the checkpoints, for a resume."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_keys(), indent=2)
    (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")


def interrupted_config(home: Home, run_id: str) -> Config:
    """Return the configuration of a training that can go on.

    Raises:
        InputError: no training of this id was interrupted here; those that were are named.
    """
    from minbert import Config

    root = home.checkpoints / EXPERIMENT
    waiting = sorted(file.parent.name for file in root.glob(f"*/{_CONFIG}"))
    if run_id not in waiting:
        known = f"those that can: {', '.join(waiting)}" if waiting else "none can"
        raise InputError(f"no interrupted training {run_id!r} to resume; {known}")
    return Config.from_keys(json.loads((root / run_id / _CONFIG).read_text(encoding="utf-8")))
