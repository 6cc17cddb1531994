"""The state of a training and what moves it: one step, one evaluation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.awake import awake
from ..common.streams import derive_seed, stream_name, stream_state
from ..config import Config
from ..errors import DivergedError
from ..evaluation.evaluate import DevSets
from ..evaluation.metrics import all_scores
from .build import Setup, make_schedule
from .cohort import Cohort
from .device_step import DeviceSteps
from .host_step import HostSteps
from .reports import EpochReport, Meter, StepReport
from .schedule import Draws
from .steps import Result, Steps


class Trainer:
    """A training in progress.

    Args:
        graphs: whether steps on a GPU are captured as CUDA graphs.
        cohort: whom it shares its passes with, if it can.

    Attributes:
        epoch: the epoch that is under way, from 1; ``epochs + 1`` when all are done.
        in_epoch: steps of it that are done. step: steps done in all.
        best_score, best_epoch: of the evaluations until now.
        on_step: told of every step, in order; on a GPU some steps later.
    """

    def __init__(
        self, config: Config, cache_dir: Path, graphs: bool = True, cohort: Cohort | None = None
    ) -> None:
        self.config = config
        self.setup = setup = Setup.of(config, cache_dir)
        self.device, self.dtype, self.corpus = setup.device, setup.dtype, setup.corpus
        self.model, self.trained = setup.model, setup.trained
        self.dropout, self.smart = setup.dropout, setup.smart
        self.schedule = make_schedule(config, self.corpus)
        self.draws = {
            name: Draws(len(dataset), config.train.batch_size, config.train.seed, name)
            for name, dataset in self.corpus.train.items()
        }
        self.steps = _make_steps(setup, graphs, cohort)
        self.total_steps = self.schedule.total_steps()
        self.epoch, self.in_epoch, self.step = 1, 0, 0
        self.best_score, self.best_epoch = float("-inf"), 0
        self.meter = Meter()
        self.dev = DevSets(self.corpus.dev, self.device, config.train.eval_limit)
        self.on_step: Callable[[StepReport], None] | None = None
        self._launched: deque[tuple[int, str, float]] = deque()  # step, task, learning rate
        self._measured_until = 0.0

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self.setup.rates(np.array([self.step or 1]))[0])

    def take_step(self, task_name: str) -> StepReport:
        """Train on the next batch of a task, and wait for what comes of it.

        Raises:
            DivergedError: see :meth:`settle`.
        """
        self.launch(task_name)
        self.settle()
        return self._last

    def launch(self, task_name: str) -> None:
        """Train on the next batch of a task; a GPU is given it to do, and not waited for.

        Raises:
            DivergedError: see :meth:`settle`.
        """
        if not self._launched:
            self._measured_until = awake()
        self.step += 1
        self.in_epoch += 1
        self._launched.append((self.step, task_name, self.lr))
        self.steps.launch(task_name, self.draws[task_name].next(), self.lr)
        self._report(self.steps.finished())

    def settle(self) -> None:
        """Wait for the steps that are under way.

        Raises:
            DivergedError: the loss of one was not finite; the weights are as before it.
        """
        self._report(self.steps.finished(wait=True))

    def _report(self, results: list[Result]) -> None:
        """Tell of steps that are over; what passed since the last ones is theirs in equal parts."""
        now = awake()
        seconds = (now - self._measured_until) / max(len(results), 1)
        self._measured_until = now if results else self._measured_until
        for loss, tokens in results:
            step, task, lr = self._launched.popleft()
            if not math.isfinite(loss):
                raise DivergedError(step, task, loss)
            self._last = StepReport(step, task, loss, lr, tokens, seconds)
            self.meter.add(self._last)
            if self.on_step is not None:
                self.on_step(self._last)

    def evaluate(self, after_batch: Callable[[], None] | None = None) -> EpochReport:
        """Score the dev sets. Doing it twice gives the same report, but for its seconds.

        Args:
            after_batch: called after every batch; what it raises leaves the training as it was.
        """
        self.settle()
        begin = awake()
        self.steps.catch_up()
        predictions = self.dev.predict(
            self.model, self.dtype, after_batch, self.steps.weights.frozen
        )
        scores = all_scores(predictions)
        is_best = scores["score"] > self.best_score or self.best_epoch == self.epoch
        if is_best:
            self.best_score, self.best_epoch = scores["score"], self.epoch
        return EpochReport(
            epoch=self.epoch,
            step=self.step,
            total_steps=self.total_steps,
            scores=scores,
            best_score=self.best_score,
            best_epoch=self.best_epoch,
            is_best=is_best,
            losses=self.meter.losses(),
            predictions=predictions,
            lr=self.lr,
            tokens_per_second=self.meter.tokens / max(self.meter.seconds, 1e-9),
            train_seconds=self.meter.total_seconds,
            eval_seconds=awake() - begin,
            eval_examples=self.dev.examples,
        )

    def evaluates(self) -> bool:
        """Whether the epoch under way ends with an evaluation."""
        train = self.config.train
        return self.epoch % train.eval_every == 0 or self.epoch == train.epochs

    def next_epoch(self) -> None:
        """Go on to the next epoch."""
        if self.evaluates():
            self.meter = Meter(total_seconds=self.meter.total_seconds)
        self.epoch += 1
        self.in_epoch = 0

    # ---- its whole state, for a checkpoint

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that trains, the optimizer's moments and the random streams."""
        self.settle()
        tensors: dict[str, Tensor] = {f"weights/{name}": p for name, p in self.trained.items()}
        tensors |= self.steps.tensors()
        tensors[stream_name("noise", self.device)] = self.dropout.state()
        return tensors | (self.smart.tensors() if self.smart is not None else {})

    def numbers(self) -> dict:
        """Return the rest of the state, as JSON holds it exactly."""
        self.settle()
        return {
            "epoch": self.epoch,
            "in_epoch": self.in_epoch,
            "step": self.step,
            "best_score": self.best_score if self.best_epoch else None,
            "best_epoch": self.best_epoch,
            "draws": {name: draws.state() for name, draws in self.draws.items()},
            "meter": vars(self.meter),
        }

    def load(self, tensors: Mapping[str, Tensor], numbers: dict) -> None:
        """Go on from a state that :meth:`tensors` and :meth:`numbers` gave.

        Where they were given on another kind of device, random streams begin anew.
        """
        load_weights(self.trained, tensors)
        self.steps.load(tensors)
        stream = stream_state(tensors, "noise", self.device)
        if stream is None:
            self.dropout.begin(derive_seed(self.config.train.seed, "step", numbers["step"]))
        else:
            self.dropout.load_state(stream)
        if self.smart is not None:
            self.smart.load(tensors, numbers["step"])
        self.epoch, self.in_epoch = numbers["epoch"], numbers["in_epoch"]
        self.step, self.best_epoch = numbers["step"], numbers["best_epoch"]
        self.best_score = float("-inf") if self.best_epoch == 0 else numbers["best_score"]
        for name, draws in self.draws.items():
            draws.load_state(numbers["draws"][name])
        self.meter = Meter(**numbers["meter"])


def _make_steps(setup: Setup, graphs: bool, cohort: Cohort | None) -> Steps:
    if setup.device.type != "cpu":
        return DeviceSteps(setup, graphs)
    if cohort is not None and cohort.takes(setup.config) is None:
        return cohort.join(setup)
    return HostSteps(setup)


def load_weights(trained: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy ``weights/<name>`` tensors into parameters."""
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weights/{name}"])
