"""Ours, as `gpu.py` measures it: training steps, evaluations, what products alone would take."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice

import numpy as np
import torch
from gpu_clock import Clock
from lines import Side
from memory import LORA
from products import Products, step_operations, synchronize

from minbert import Config
from minbert.backbone.weights import backbone_shape
from minbert.data.datasets import load_corpus
from minbert.training.build import make_schedule
from minbert.training.device_step import DeviceSteps
from minbert.training.reports import StepReport
from minbert.training.schedule import Draws
from minbert.training.trainer import Trainer

LR = 1e-5
RECIPES: dict[str, dict] = {
    "full": {},
    "lora": LORA,
    "pals": {"pals.kind": "shared"},
    "smart": {"smart.lambda": 1e-3, "smart.mode": "noise"},
}
_WARM_UP_ROUNDS = 20  # at most; two without a new graph are enough


def config_of(options, recipe: str = "full") -> Config:
    """Return the configuration of a training: batches of 16, the paper's mix of tasks."""
    names = {"backbone": options.backbone, "data.path": options.data, "train.lr": LR}
    names |= {"train.device": str(options.device), "train.epochs": 1}
    return Config.from_keys(names | RECIPES[recipe])


class Ours:
    """A training of ours, whose steps are launched one after the other.

    Attributes:
        reports: of the steps that are over.
    """

    def __init__(self, options, recipe: str, graphs: bool = True) -> None:
        self.trainer = Trainer(config_of(options, recipe), options.cache, graphs)
        self.reports: list[StepReport] = []
        self.trainer.on_step = self.reports.append
        self._tasks = cycle(self.trainer.schedule.epoch(1))
        self._device = options.device

    def take(self, steps: int) -> None:
        """Take steps, and wait until the device has done them."""
        for task in islice(self._tasks, steps):
            self.trainer.launch(task)
        self.trainer.settle()
        synchronize(self._device)

    def captured(self) -> tuple[int, float]:
        """Return how many graphs there are, and the seconds that capturing them took.

        Raises:
            RuntimeError: they could not be captured.
        """
        steps = self.trainer.steps
        if not isinstance(steps, DeviceSteps):
            return 0, 0.0
        if notices := steps.notices():
            raise RuntimeError("; ".join(notices))
        return steps.graphs.captured, steps.graphs.seconds

    def warm_up(self, steps: int, clock: Clock) -> None:
        """Take rounds of steps until two in succession captured nothing."""
        quiet, before = 0, self.captured()
        for _ in range(_WARM_UP_ROUNDS):
            if quiet == 2 or not clock.has_time():
                return
            self.take(steps)
            quiet = quiet + 1 if self.captured() == before else 0
            before = self.captured()


class Mix:
    """The paper's mix of tasks, and each task's own draws, without a training."""

    def __init__(self, options) -> None:
        config = config_of(options)
        self.corpus = load_corpus(options.data, options.backbone, options.cache)
        self._tasks = cycle(make_schedule(config, self.corpus).epoch(1))
        size, seed = config.train.batch_size, config.train.seed
        self._draws = {
            name: Draws(len(dataset), size, seed, name)
            for name, dataset in self.corpus.train.items()
        }

    def batches(self, count: int) -> list[tuple[str, np.ndarray]]:
        """Return the task of each of the next batches, and which of its examples."""
        return [(task, self._draws[task].next()) for task in islice(self._tasks, count)]


@contextmanager
def memory_of(options) -> Iterator[dict]:
    """Yield a dictionary that tells, at the end, what memory was needed at most.

    The card is empty at the beginning: what is left of others is given back.
    """
    found: dict = {}
    gc.collect()
    if options.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(options.device)
    yield found
    if options.device.type == "cuda":
        found["peak_gb"] = torch.cuda.max_memory_allocated(options.device) / 1e9
        found["reserved_gb"] = torch.cuda.max_memory_reserved(options.device) / 1e9


def ways(options) -> dict[str, bool]:
    """Return how steps are taken: on a GPU as graphs and not, on a CPU not."""
    return {"graphs": True} | WITHOUT if options.device.type == "cuda" else WITHOUT


WITHOUT = {"without": False}


# ---- steps


def measure_steps(options, clock: Clock, say) -> dict:
    """Time our steps, of each recipe, as graphs and not."""
    found: dict = {recipe: {} for recipe in RECIPES}
    for recipe in RECIPES:
        for way, graphs in ways(options).items():
            name = f"steps, {recipe}, {way}"
            told = clock.attempt(name, partial(_steps, options, recipe, graphs, clock, name))
            if told is not None:
                found[recipe][way] = told
                say(f"{name}: {told['ms']:.2f} ms")
    return found


def _steps(options, recipe: str, graphs: bool, clock: Clock, name: str) -> dict:
    steps = options.steps if graphs else max(1, options.steps // 4)
    with memory_of(options) as found:
        ours, began = Ours(options, recipe, graphs), time.perf_counter()
        ours.warm_up(steps, clock)
        found["warm_up_seconds"] = time.perf_counter() - began
        ours.reports.clear()
        side = Side(lambda: ours.take(steps))
        for _ in clock.rounds(name, options.rounds):
            before = ours.captured()
            side.turn(per=steps)
            if ours.captured() != before:  # a shape that the warm-up did not meet
                side.seconds.pop()
                side.turn(per=steps)
        found |= {**timed(side), "precision": type_name(ours.trainer.dtype)}
        found["tokens"] = float(np.mean([report.tokens for report in ours.reports]))
        found["graphs"], found["capture_seconds"] = ours.captured()
    return found


def timed(side: Side) -> dict:
    """Return the median of a side's rounds, in ms, their spread, and all of them."""
    rounds = [1e3 * seconds for seconds in side.seconds]
    return {"ms": 1e3 * side.median, "spread": side.spread, "rounds": rounds}


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ---- evaluation


def measure_evaluation(options, clock: Clock, say) -> dict:
    """Time evaluations of all dev sets, with their scores."""
    found = {}
    for recipe in ("full", "lora"):
        name = f"evaluation, {recipe}"
        told = clock.attempt(name, partial(_evaluation, options, recipe, clock, name))
        if told is not None:
            found[recipe] = told
            say(f"{name}: {told['examples_a_second']:,.0f} examples a second")
    return found


def _evaluation(options, recipe: str, clock: Clock, name: str) -> dict:
    with memory_of(options) as found:
        trainer = Ours(options, recipe).trainer
        trainer.evaluate()  # warm-up
        side = Side(trainer.evaluate)
        for _ in clock.rounds(name, options.rounds):
            side.turn(per=trainer.dev.examples)
        found["examples_a_second"], found["spread"] = 1 / side.median, side.spread
        found["examples"] = trainer.dev.examples
    return found


# ---- the limit


def measure_limit(options, clock: Clock, say) -> dict:
    """Time a large product, and say what those of a full-model step would take at its rate."""
    told = clock.attempt("limit", partial(_limit, options, clock))
    if told is None:
        return {}
    say(f"limit: {told['tflops']:.3g} TFLOP/s, {told['step_ms']:.2f} ms a step")
    return told


def _limit(options, clock: Clock) -> dict:
    products = Products(options.device, options.dtype)
    products.turn()
    products.seconds.clear()  # warm-up
    for _ in clock.rounds("limit", options.rounds):
        products.turn(per=products.operations)
    mix, shape = Mix(options), backbone_shape(options.backbone, options.cache)
    operations = np.mean([
        step_operations(shape, mix.corpus.train[task].lengths[indices])
        for task, indices in mix.batches(options.rounds * options.steps)
    ])  # fmt: skip
    return {
        "tflops": 1e-12 / products.median,
        "spread": products.spread,
        "precision": type_name(options.dtype),
        "step_tflop": 1e-12 * float(operations),
        "step_ms": 1e3 * float(operations) * products.median,
    }
