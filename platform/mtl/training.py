"""One tracked training outside any study: what ``mtl train`` does."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from minbert.errors import DivergedError, InputError, TrainingStopped

from .interrupts import Interrupts, StopNow

if TYPE_CHECKING:
    from minbert import Config, EpochReport, StepReport

    from .stores import Home

EXPERIMENT = "train"
_CONFIG = "config.json"


class Watcher(Protocol):
    """Shows a training while it runs."""

    def started(self, run_id: str, total_steps: int, demo: bool) -> None:
        """The run exists and the training begins."""

    def step(self, report: StepReport) -> None:
        """One step was trained."""

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
    """

    run_id: str
    profile: str | None
    state: str
    scores: dict[str, float]
    best_epoch: int | None
    minutes: float
    reason: str | None = None


def train_once(
    config: Config, home: Home, watcher: Watcher, *, profile: str | None, resume: str | None
) -> TrainingResult:
    """Train one configuration and record it as a run of the experiment ``train``.

    An interrupt (SIGINT, SIGTERM) writes a checkpoint and ends the run as killed; ``resume`` with
    the run's id goes on from there, bit for bit on a CPU.

    Args:
        profile: the recipe's name, for a tag. resume: the id of an interrupted training's run.

    Raises:
        InputError: data or weights cannot be used; nothing is recorded then.
    """
    import minbert

    from .preflight import git_commit, read_inputs
    from .tracking import StudyTracker

    inputs = read_inputs(config, home)
    total = minbert.total_steps(config, home.cache)
    tracker = StudyTracker(home.mlflow_uri, home.mlflow_artifacts)
    if resume is None:
        tags = {"mtl.profile": profile, "mtl.git_commit": git_commit(), **inputs.tags}
        run_id = tracker.create_trial_run(
            parent_run_id=None, study=EXPERIMENT, number=None, params=config.to_keys(),
            tags=tags, datasets=inputs.datasets,
        )
    else:
        run_id = resume
        tracker.reopen(run_id)
    folder = home.checkpoints / EXPERIMENT / run_id
    _remember(folder, config)
    watcher.started(run_id, total, demo="demo" in (config.backbone, config.data.path))
    began = time.monotonic()
    try:
        best = _train(config, home, folder, run_id, watcher)
    except (TrainingStopped, StopNow):
        tracker.end(run_id, "killed", "interrupted")
        return TrainingResult(run_id, profile, "killed", {}, None, _minutes(began))
    except DivergedError as error:
        tracker.end(run_id, "failed", str(error))
        return TrainingResult(run_id, profile, "failed", {}, None, _minutes(began), str(error))
    except BaseException as error:
        tracker.end(run_id, "failed", f"{type(error).__name__}: {error}")
        raise
    tracker.end(run_id, "complete")
    shutil.rmtree(folder)
    return TrainingResult(run_id, profile, "complete", best.scores, best.epoch, _minutes(began))


def _train(
    config: Config, home: Home, folder: Path, run_id: str, watcher: Watcher
) -> EpochReport:
    import minbert

    from .tracking import RunRecorder

    recorder = RunRecorder(home.mlflow_uri, run_id)

    def on_step(report: StepReport) -> None:
        recorder.on_step(report)
        watcher.step(report)

    with Interrupts() as interrupts:
        for report in minbert.train(
            config,
            cache_dir=home.cache,
            checkpoint_dir=folder,
            on_step=on_step,
            should_stop=lambda: interrupts.asked,
        ):
            recorder.on_epoch(report)
            watcher.evaluated(report)
        with tempfile.TemporaryDirectory(prefix="mtl-train-") as work:
            return recorder.finish(config, folder, Path(work), home.cache).best


def _minutes(began: float) -> float:
    return (time.monotonic() - began) / 60


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
