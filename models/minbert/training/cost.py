"""What a training would cost, from a few measured steps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, median

import psutil

from ..config import Config
from ..evaluation.evaluate import predict_dataset
from .trainer import Trainer

_EVAL_SAMPLE = 96  # examples of each dev set that are timed
_STEPS = {"cpu": (1, 6), "cuda": (120, 60)}
"""Steps that are not timed, and that are. The first ones pay for what is set up once: on a GPU for
every shape, which becomes a graph when it comes again."""


@dataclass(frozen=True)
class Measurement:
    """The cost of a configuration on this machine.

    Attributes:
        seconds_per_step: over the measured steps, tasks as the schedule draws them.
        eval_examples_per_second: over the dev sets of all tasks.
        dev_examples: of all tasks.
        total_steps: of the whole training.
        peak_bytes: resident memory of this process after the measured steps.
        checkpoint_bytes: of a checkpoint: what trains, and the optimizer's two moments.
    """

    seconds_per_step: float
    eval_examples_per_second: float
    dev_examples: int
    total_steps: int
    peak_bytes: int
    checkpoint_bytes: int


def measure(config: Config, cache_dir: Path) -> Measurement:
    """Take a few steps of a training and evaluate on a part of the dev sets; keep nothing.

    Raises:
        InputError: data or weights cannot be used.
        DivergedError: the loss is not finite.
    """
    trainer = Trainer(config, cache_dir)
    seconds: list[float] = []
    trainer.on_step = lambda report: seconds.append(report.seconds)
    unmeasured, measured = _STEPS[trainer.device.type]
    planned = cycle(trainer.schedule.epoch(1))
    for task in islice(planned, unmeasured):
        trainer.launch(task)
    trainer.settle()
    seconds.clear()
    for task in islice(planned, measured):
        trainer.launch(task)
    trainer.settle()
    rate, examples = _eval_rate(trainer)
    trained = sum(p.numel() * p.element_size() for p in trainer.trained.values())
    return Measurement(
        seconds_per_step=median(seconds) if trainer.device.type == "cpu" else mean(seconds),
        eval_examples_per_second=rate,
        dev_examples=examples,
        total_steps=trainer.total_steps,
        peak_bytes=psutil.Process().memory_info().rss,
        checkpoint_bytes=3 * trained,
    )


def _eval_rate(trainer: Trainer) -> tuple[float, int]:
    """Return examples a second over a sample of each dev set, and how many there are in all."""
    done, spent, total = 0, 0.0, 0
    for dataset in trainer.dev.datasets.values():
        sample = dataset.stratified(_EVAL_SAMPLE)
        begin = time.perf_counter()
        predict_dataset(trainer.model, sample, trainer.device, trainer.dtype)
        spent += time.perf_counter() - begin
        done += len(sample)
        total += len(dataset)
    return done / spent, total
