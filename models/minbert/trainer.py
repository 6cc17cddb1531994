"""The training loop: a generator of reports.

The module is not called after its function: ``minbert.train`` is the function.

>>> for report in train(config, cache_dir=Path("cache")):  # doctest: +SKIP
...     print(report.epoch, report.scores["score"])
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from .backbone import backbone_digest
from .checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    Snapshot,
    best_snapshot,
    best_weights,
    load_best,
    read_best,
    read_last,
    write_snapshot,
)
from .config import Config
from .data import data_digest, load_corpus
from .errors import InputError, TrainingStopped
from .evaluate import DevSets
from .metrics import all_scores
from .reports import EpochReport, StepReport
from .runtime import pick_device
from .training import Training, config_dtype, load_weights, make_schedule, prepare_model

_SECONDS_BETWEEN = 30.0  # checkpoints within an epoch
_COST = 20.0  # a checkpoint may take a twentieth of the time


def train(
    config: Config,
    *,
    cache_dir: Path,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[EpochReport]:
    """Train, yielding a report at each evaluation on the dev sets.

    Where ``checkpoint_dir`` holds a checkpoint of this configuration, the training goes on from it
    and ends, on the CPU, bit for bit where an uninterrupted one ends. After a crash, steps and
    evaluations since the last checkpoint come again, with equal numbers.

    Args:
        config: what to train.
        cache_dir: where tokenised data is kept between trainings.
        checkpoint_dir: where checkpoints and the best epoch are kept; None keeps neither.
        on_step: told of every step.
        should_stop: asked after every step and every report; when it says yes, a checkpoint is
            written and :class:`TrainingStopped` is raised.

    Raises:
        InputError: data, weights or checkpoint cannot be used.
        DivergedError: a loss was not finite.
        TrainingStopped: see ``should_stop``.
    """
    training = Training(config, cache_dir)
    keeper = _Keeper(training, cache_dir, checkpoint_dir)
    keeper.resume()

    def heed_stop() -> None:
        if should_stop is not None and should_stop():
            keeper.save()
            raise TrainingStopped(f"stopped after step {training.step}")

    try:
        while training.epoch <= config.train.epochs:
            for task in training.schedule.epoch(training.epoch)[training.in_epoch :]:
                report = training.take_step(task)
                if on_step is not None:
                    on_step(report)
                heed_stop()
                keeper.save_if_due(_SECONDS_BETWEEN)
            if training.evaluates():
                report = training.evaluate()
                keeper.note(report)
                yield report
            training.next_epoch()
            keeper.save_if_due(0)
            heed_stop()
        keeper.save()  # whoever comes back finds it finished
    finally:
        keeper.save_best()


def evaluate_best(
    config: Config, checkpoint_dir: Path, cache_dir: Path | None = None
) -> EpochReport:
    """Return the best epoch's report on the whole dev sets.

    Where ``train.eval_limit`` left examples out, the best epoch is evaluated again on all of them,
    once, and its report is replaced by what comes out: scores, predictions and ``best_score``.

    Raises:
        InputError: there was no evaluation yet.
    """
    report = load_best(checkpoint_dir)
    if not config.train.eval_limit:
        return report
    device = pick_device(config.train.device)
    dev = DevSets(load_corpus(config.data.path, config.backbone, cache_dir).dev, device)
    if dev.examples == report.eval_examples:
        return report
    snapshot = read_best(checkpoint_dir)
    begin = time.perf_counter()
    model = prepare_model(config, cache_dir, device)
    load_weights(model.trained(), snapshot.tensors)
    predictions = dev.predict(model, config_dtype(config, device))
    scores = all_scores(predictions)
    report = replace(
        report,
        scores=scores,
        best_score=scores["score"],
        predictions=predictions,
        eval_examples=dev.examples,
        eval_seconds=time.perf_counter() - begin,
    )
    full = best_snapshot(report, best_weights(snapshot))
    write_snapshot(full, Path(checkpoint_dir) / BEST)
    return report


def total_steps(config: Config, cache_dir: Path) -> int:
    """Return how many steps a training has."""
    corpus = load_corpus(config.data.path, config.backbone, cache_dir)
    return make_schedule(config, corpus).total_steps()


class _Keeper:
    """Keeps a training's checkpoints, and its best epoch."""

    def __init__(self, training: Training, cache_dir: Path, folder: Path | None) -> None:
        self._training = training
        self._folder = None if folder is None else Path(folder)
        self._unsaved_best: Snapshot | None = None
        self._saved_at = time.monotonic()
        self._cost = 0.0
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._identity = _identity(training.config, cache_dir)

    def resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        snapshot = None if self._folder is None else read_last(self._folder)
        if snapshot is None:
            return
        if snapshot.state["identity"] != self._identity:
            raise InputError(
                f"{self._folder}: holds a checkpoint of another training "
                f"({_difference(snapshot.state['identity'], self._identity)}); "
                "give another folder or remove it"
            )
        self._training.load(snapshot.tensors, snapshot.state["numbers"])

    def note(self, report: EpochReport) -> None:
        """Keep the weights of a best epoch, in memory until the next checkpoint."""
        if report.is_best and self._folder is not None:
            weights = {n: p.detach().cpu().clone() for n, p in self._training.trained.items()}
            self._unsaved_best = best_snapshot(report, weights)

    def save_if_due(self, seconds: float) -> None:
        """Write a checkpoint if the last is old enough, in seconds and against what one costs."""
        if time.monotonic() - self._saved_at >= max(seconds, _COST * self._cost):
            self.save()

    def save(self) -> None:
        """Write the best epoch if it is new, and a checkpoint."""
        if self._folder is None:
            return
        begin = time.monotonic()
        self.save_best()
        state = {"identity": self._identity, "numbers": self._training.numbers()}
        snapshot = Snapshot(self._training.tensors(), state)
        write_snapshot(snapshot, self._folder / LAST, keep=self._folder / PREVIOUS)
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - begin

    def save_best(self) -> None:
        """Write the best epoch, if it is not yet on the disk."""
        if self._unsaved_best is not None and self._folder is not None:
            write_snapshot(self._unsaved_best, self._folder / BEST)
            self._unsaved_best = None


def _identity(config: Config, cache_dir: Path) -> dict:
    """What must be equal for a checkpoint to be of this training."""
    keys = {k: v for k, v in config.to_keys().items() if k not in ("train.device", "data.path")}
    return keys | {
        "data.path": data_digest(config.data.path, cache_dir),
        "backbone": backbone_digest(config.backbone, cache_dir),
    }


def _difference(theirs: dict, ours: dict) -> str:
    key = next(k for k in {**theirs, **ours} if theirs.get(k) != ours.get(k))
    return f"{key} was {theirs.get(key)!r} and is {ours.get(key)!r}"
