"""Trainings that share passes over one frozen encoder, beside the same trainings one after another
and in processes of their own. How to run it: README.md.

Each number of places trains as many LoRA trainings for a few steps: together in a cohort, one after
another in one process, and side by side in processes that share the machine's cores out among
themselves. The three take turns, round after round.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch
from machine import device_name, machine
from rich.console import Console
from rich.table import Table

from minbert import Config
from minbert.device import pick_device
from minbert.training.cohort import Cohort
from minbert.training.trainer import Trainer

RANKS = (1, 2, 4, 8, 16)


class Trainings:
    """Some LoRA trainings, of ranks in turn, that take their steps in one way or another."""

    def __init__(self, options, count: int, cohort: Cohort | None) -> None:
        self._trainers = [self._make(options, number, cohort) for number in range(count)]
        self._tasks = [cycle(each.schedule.epoch(1)) for each in self._trainers]

    def _make(self, options, number: int, cohort: Cohort | None) -> Trainer:
        keys = {
            "backbone": options.backbone, "data.path": options.data, "train.epochs": 1,
            "train.mode": "last-linear-layer", "lora.rank": RANKS[number % len(RANKS)],
            "lora.alpha": 4.0, "train.lr": 1e-4, "train.seed": number, "train.device": "cpu",
        }  # fmt: skip
        return Trainer(Config.from_keys(keys), options.cache, cohort=cohort)

    def one_after_another(self, steps: int) -> None:
        """Let each take its steps, one training after the other."""
        for number in range(len(self._trainers)):
            self._take(number, steps)

    def together(self, steps: int) -> None:
        """Let all of them take their steps at once, each in a thread."""
        threads = [
            threading.Thread(target=self._take, args=(number, steps))
            for number in range(len(self._trainers))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self, number: int, steps: int) -> None:
        trainer = self._trainers[number]
        for task in islice(self._tasks[number], steps):
            trainer.launch(task)
        trainer.settle()
        trainer.steps.close()


class Processes:
    """The same trainings, each in a process of its own, as `--jobs` has them."""

    def __init__(self, options, count: int) -> None:
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        command = [sys.executable, __file__, "--data", options.data, "--backbone", options.backbone,
                   "--cache", str(options.cache), "--threads", str(threads)]  # fmt: skip
        self._running = [
            subprocess.Popen(
                [*command, "--alone", str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )
            for number in range(count)
        ]  # fmt: skip
        self._answers()

    def together(self, steps: int) -> None:
        """Let all of them take their steps at once."""
        for process in self._running:
            print(steps, file=process.stdin, flush=True)
        self._answers()

    def _answers(self) -> None:
        for process in self._running:
            if process.stdout.readline().strip() != "ready":
                raise RuntimeError("a training's process has ended")

    def close(self) -> None:
        for process in self._running:
            process.stdin.close()
            process.wait()


def alone(options) -> None:
    """Be one of these processes."""
    training = Trainings(options, 1, None)
    print("ready", flush=True)
    for line in sys.stdin:
        training.one_after_another(int(line))
        print("ready", flush=True)


def measure(options, places: int) -> dict[str, float]:
    """Return the milliseconds of a step and training, of each way: medians of the rounds."""
    cohort = Trainings(options, places, Cohort(places))
    singles, processes = Trainings(options, places, None), Processes(options, places)
    ways = {
        "in a cohort": cohort.together,
        "one after another": singles.one_after_another,
        "in processes": processes.together,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for number in range(options.rounds + 1):
            for name, take in ways.items():
                begin = time.perf_counter()
                take(options.steps)
                spent = (time.perf_counter() - begin) / (options.steps * places)
                if number:  # the first round pays for what is set up once
                    found[name].append(1e3 * spent)
    finally:
        processes.close()
    return {name: median(times) for name, times in found.items()}


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.alone is not None:
        alone(options)
        return 0
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="mtl-cohort-") as folder:
        options.cache = options.cache or Path(folder)
        begin = os.getloadavg()
        for places in options.places:
            rows[places] = measure(options, places)
            print(f"{places} places: {rows[places]}", file=sys.stderr, flush=True)
    _print(rows)
    record = {
        **machine("torch", "numpy"),
        "device": device_name(pick_device("cpu")),
        "threads": options.threads,
        "load": {"before": begin, "after": os.getloadavg()},
        "backbone": Path(options.backbone).name,
        "data": Path(options.data).name,
        "milliseconds a step and training": rows,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"load {begin[0]:.1f} before, {os.getloadavg()[0]:.1f} after; {options.output}")
    return 0


def _print(rows: dict[int, dict[str, float]]) -> None:
    ways = list(next(iter(rows.values())))
    table = Table("trainings", *(f"{way}, ms" for way in ways), "after one another / cohort")
    for places, found in rows.items():
        ratio = found["one after another"] / found["in a cohort"]
        table.add_row(str(places), *(f"{found[way]:.1f}" for way in ways), f"{ratio:.2f}")
    Console().print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", default="demo", help="data folder, as data.path")
    parser.add_argument("--backbone", default="demo", help="backbone folder")
    parser.add_argument("--places", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of each training in a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cache", type=Path, help="where tokens are kept; default: not kept")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("cohort.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
