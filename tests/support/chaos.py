"""kill -9, at moments that are drawn at random from a seeded generator.

A moment is either a span of time or something that is seen to happen: a checkpoint being written,
an artifact being uploaded, a database being written to.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from .study_runs import Study

VICTIMS = ("worker", "dispatcher", "both")
MOMENTS = ("start", "training", "checkpoint", "upload", "database")

_LOOK = 0.001  # seconds between looks
_PATIENCE = 60.0  # seconds to wait for a moment
_BEGINNING = 4.0  # seconds in which a command starts, about
_WHILE = 1.5  # seconds that a trial takes, about
_SAID = re.compile(rb"trial \d+ (epoch|complete)")


@dataclass(frozen=True)
class Kill:
    """Who is killed, and when."""

    victim: str
    moment: str


def draw_kills(generator: random.Random, count: int) -> list[Kill]:
    """Draw kills: every victim at every moment before any comes again."""
    kills: list[Kill] = []
    while len(kills) < count:
        pairs = [Kill(*pair) for pair in itertools.product(VICTIMS, MOMENTS)]
        generator.shuffle(pairs)
        kills += pairs
    return kills[:count]


class Killer:
    """Kills processes of a study, and keeps account.

    Attributes:
        killed: how often, by victim and moment.
        torn: kills that left a checkpoint half written.

    Args:
        log: a file for what the study's command prints.
        once: a trial loses its worker at most once. Otherwise again, as soon as it has written
            a checkpoint since: it must survive that, too.
        ended: says that there is no point in waiting any longer.
    """

    def __init__(
        self,
        study: Study,
        generator: random.Random,
        log: Path,
        once: bool = True,
        ended: Callable[[], bool] = lambda: False,
    ) -> None:
        self._study, self._random, self._log, self._once = study, generator, log, once
        self._ended = ended
        self._read_from = 0
        self._bereft: dict[int, tuple | None] = {}  # trial -> its checkpoint when its worker died
        self.killed: Counter[Kill] = Counter()
        self.torn = 0

    def start(self, *options: str) -> None:
        """Start the study's command."""
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        self._study.start(*options, log=self._log)

    def strike(self, kill: Kill) -> Kill | None:
        """Wait for the moment and kill; return what was killed, None if the study ended first."""
        if not self.wait(kill.moment):
            return None
        if kill.victim == "worker" and not self._may_lose_worker():
            kill = Kill("both", kill.moment)  # it would rightly fail: all go down together instead
        workers = self._study.worker_pids()
        if kill.victim == "worker" and not workers:
            kill = Kill("dispatcher", kill.moment)
        if kill.victim == "worker":
            self._take_note()
            _kill([worker := self._random.choice(workers)])
            self._until(lambda: dead(worker))
            self._take_note()  # between look and death, the next trial may have begun
        else:
            self._study.kill()
            _kill(workers if kill.victim == "both" else [])
        self.killed[kill] += 1
        self.torn += kill.moment == "checkpoint" and self._writes_checkpoint()
        return kill

    # ---- moments --------------------------------------------------------------------------------

    def wait(self, moment: str) -> bool:
        """Wait for a moment; False if the command ended, or nothing of the kind ever came."""
        if moment == "start":
            return self._sleep(self._random.uniform(0, _BEGINNING))
        if not self._until(self._is_training):
            return False
        if moment == "training":
            return self._sleep(self._random.uniform(0, _WHILE))
        if moment == "checkpoint":
            return self._until(self._writes_checkpoint)
        if moment == "upload":
            before = self._uploads()
            # An upload takes some hundredths of a second.
            return self._until(lambda: self._uploads() - before) and self._sleep(
                self._random.uniform(0, 0.03)
            )
        self._sleep(self._random.uniform(0, _WHILE))
        before = self._logs()
        return self._until(lambda: self._logs() != before)

    def _sleep(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end and not self._over():
            time.sleep(min(0.05, end - now))
        return not self._over()

    def _until(self, condition: Callable[[], object]) -> bool:
        end = time.monotonic() + _PATIENCE
        while not self._over() and time.monotonic() < end:
            if condition():
                return True
            time.sleep(_LOOK)
        return False

    def _over(self) -> bool:
        return self._study.process.poll() is not None or self._ended()

    def _is_training(self) -> bool:
        """Whether a worker has begun: it has said something of a trial."""
        with self._log.open("rb") as log:
            log.seek(self._read_from)
            return _SAID.search(log.read()) is not None

    def _writes_checkpoint(self) -> bool:
        return any((self._study.home / "checkpoints").glob("*/*/*.part"))

    def _uploads(self) -> set[str]:
        """Runs that have artifacts: the first of a run shows that an upload has begun."""
        served = self._study.mlflow != self._study.home
        root = self._study.mlflow / "artifacts" if served else self._study.home / "artifacts/mlflow"
        return {entry.name for folder in _scan(root) for entry in _scan(Path(folder.path))}

    def _logs(self) -> list[tuple]:
        """Size and time of the databases' write-ahead logs."""
        folders = (self._study.home / "optuna.db-wal", self._study.mlflow / "mlflow.db-wal")
        return [_stamp(path) for path in folders]

    # ---- what a trial may lose ------------------------------------------------------------------

    def _may_lose_worker(self) -> bool:
        """Whether every trial that trains goes on if it loses its worker now."""
        for number in self._training():
            if number in self._bereft:
                now = self._checkpoint(number)
                if self._once or now is None or now == self._bereft[number]:
                    return False
        return True

    def _take_note(self) -> None:
        for number in self._training():
            self._bereft[number] = self._checkpoint(number)

    def _training(self) -> list[int]:
        """Trials that are RUNNING; none: the one that may be created this very moment."""
        if not (self._study.home / "optuna.db").exists():
            return [0]
        try:
            rows = self._study.query("optuna.db", "select number, state from trials")
        except sqlite3.OperationalError:  # its tables are just being made
            return [0]
        return [number for number, state in rows if state == "RUNNING"] or [len(rows)]

    def _checkpoint(self, number: int) -> tuple | None:
        return _stamp(self._study.home / f"checkpoints/tiny/{number}/last.safetensors")



def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def dead(pid: int) -> bool:
    """Say whether a process is gone; a zombie is."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _scan(folder: Path) -> list[os.DirEntry]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        return list(entries)
    return []


def _stamp(path: Path) -> tuple | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
