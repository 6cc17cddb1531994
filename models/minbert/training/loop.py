"""The training loop: a generator of reports.

The module is not called after its function: ``minbert.train`` is the function.

>>> for report in train(config, cache_dir=Path("cache")):  # doctest: +SKIP
...     print(report.epoch, report.scores["score"])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

from ..common.awake import awake
from ..config import Config
from ..data.datasets import load_corpus
from ..device import pick_device
from ..errors import TrainingStopped
from ..evaluation.evaluate import DevSets
from ..evaluation.metrics import all_scores
from .build import config_dtype, make_schedule, prepare_model
from .checkpoint import BEST, best_snapshot, best_weights, load_best, read_best, write_snapshot
from .checkpointer import Checkpointer
from .cohort import Cohort
from .reports import EpochReport, StepReport
from .trainer import load_weights

_log = logging.getLogger(__name__)
_SECONDS_BETWEEN = 30.0  # checkpoints within an epoch


def train(
    config: Config,
    *,
    cache_dir: Path,
    checkpoint_dir: Path | None = None,
    on_step: Callable[[StepReport], None] | None = None,
    on_evaluation: Callable[[], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_notice: Callable[[str], None] | None = None,
    cohort: Cohort | None = None,
) -> Generator[EpochReport, None, None]:
    """Train, yielding a report at each evaluation on the dev sets.

    Where ``checkpoint_dir`` holds a checkpoint of this configuration, the training goes on from it
    and ends, on the CPU, bit for bit where an uninterrupted one ends, if it goes on with as many
    threads, on such a processor, with the same versions of torch and numpy; where one of them is
    another, ``on_notice`` is told. After a crash, steps and evaluations since the last checkpoint
    come again, with equal numbers. Where the newest
    checkpoint is damaged it goes on from the one before, and without a good one it begins anew:
    that takes time, and ends the same.

    Args:
        config: what to train.
        cache_dir: where tokenised data is kept between trainings.
        checkpoint_dir: where checkpoints and the best epoch are kept; None keeps neither.
        on_step: told of every step; on a GPU some steps later.
        on_evaluation: told that an evaluation begins; on large dev sets it takes minutes.
        should_stop: asked after every step, every report, and every batch of an evaluation; when
            it says yes, a checkpoint is written and :class:`TrainingStopped` is raised.
        on_notice: told, in one line, which checkpoints were damaged and what follows, or what the
            training goes on with that may change its last bits, or what makes its steps slower
            than they would be; it is logged as a warning, too.
        cohort: whom it shares its passes with, if it can: trainings in other threads.

    Raises:
        InputError: data or weights cannot be used, or the checkpoint is of another training.
        DivergedError: a loss was not finite.
        OSError: a checkpoint cannot be written; those before are as they were.
        TrainingStopped: see ``should_stop``.
    """
    checkpointer = Checkpointer(config, cache_dir, checkpoint_dir, on_notice, cohort)
    trainer = checkpointer.trainer
    trainer.on_step = on_step

    def check_stop() -> None:
        if should_stop is not None and should_stop():
            raise TrainingStopped(f"stopped after step {trainer.step}")

    def check_notices() -> None:
        for notice in trainer.steps.notices():
            _log.warning(notice)
            if on_notice is not None:
                on_notice(notice)

    try:
        yield from _epochs(checkpointer, on_evaluation, check_stop, check_notices)
        checkpointer.save()  # whoever comes back finds it finished
    except TrainingStopped:
        checkpointer.save()
        raise
    finally:
        trainer.steps.close()
        checkpointer.save_best()


def _epochs(
    checkpointer: Checkpointer,
    on_evaluation: Callable[[], None] | None,
    check_stop: Callable[[], None],
    check_notices: Callable[[], None],
) -> Generator[EpochReport, None, None]:
    """Go on from where the checkpointer's trainer stands, to the last epoch; see :func:`train`."""
    trainer = checkpointer.trainer
    while trainer.epoch <= trainer.config.train.epochs:
        check_notices()
        for task in trainer.schedule.epoch(trainer.epoch)[trainer.in_epoch :]:
            trainer.launch(task)
            check_stop()
            checkpointer.save_if_due(_SECONDS_BETWEEN)
        if trainer.evaluates():
            if on_evaluation is not None:
                on_evaluation()
            report = trainer.evaluate(check_stop)
            checkpointer.note(report)
            yield report
        check_notices()
        trainer.next_epoch()
        checkpointer.save_if_due(0)
        check_stop()


def evaluate_best(
    config: Config,
    checkpoint_dir: Path,
    cache_dir: Path | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> EpochReport:
    """Return the best epoch's report on the whole dev sets.

    Where ``train.eval_limit`` left examples out, the best epoch is evaluated again on all of them,
    once, and its report is replaced by what comes out: scores, predictions and ``best_score``.

    Args:
        should_stop: asked after every batch of such an evaluation.

    Raises:
        InputError: there was no evaluation yet.
        TrainingStopped: ``should_stop`` said yes; nothing was written, and nothing is lost.
    """
    report = load_best(checkpoint_dir)
    if not config.train.eval_limit:
        return report
    device = pick_device(config.train.device)
    dev = DevSets(load_corpus(config.data.path, config.backbone, cache_dir).dev, device)
    if dev.examples == report.eval_examples:
        return report
    snapshot = read_best(checkpoint_dir)
    begin = awake()
    model = prepare_model(config, cache_dir, device)
    load_weights(model.trained(), snapshot.tensors)

    def check_stop() -> None:
        if should_stop is not None and should_stop():
            raise TrainingStopped("stopped while the best epoch was evaluated")

    predictions = dev.predict(model, config_dtype(config, device), check_stop)
    scores = all_scores(predictions)
    report = replace(
        report,
        scores=scores,
        best_score=scores["score"],
        predictions=predictions,
        eval_examples=dev.examples,
        eval_seconds=awake() - begin,
    )
    full = best_snapshot(report, best_weights(snapshot))
    write_snapshot(full, Path(checkpoint_dir) / BEST)
    return report


def total_steps(config: Config, cache_dir: Path) -> int:
    """Return how many steps a training has."""
    corpus = load_corpus(config.data.path, config.backbone, cache_dir)
    return make_schedule(config, corpus).total_steps()
