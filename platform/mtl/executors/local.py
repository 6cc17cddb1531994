"""Trials in worker processes on this machine: started once, warm between trials."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from minbert import InputError

from ..common.patience import Patience
from ..worker.messages import (
    ENDINGS,
    Advance,
    Alive,
    Cancel,
    Died,
    Event,
    Failed,
    Stopped,
    TrialJob,
)
from .base import Executor
from .resources import Folders, Resources, default_jobs, threads_for, visible_gpus

_PARTING = 1.0  # seconds that workers have to leave by themselves, all together
_LEAVING = 10.0  # for one that has closed its pipe


@dataclass
class _Worker:
    process: subprocess.Popen
    connection: Connection
    killed_before: int  # processes that the system had ended for want of memory
    places: int
    trials: dict[int, bool] = field(default_factory=dict)  # each with: it has been told to stop
    apart: bool = False  # it has a trial that shall be alone
    sending: threading.Lock = field(default_factory=threading.Lock)

    @property
    def free(self) -> int:
        """How many trials it takes now."""
        return 0 if self.apart and self.trials else self.places - len(self.trials)


class LocalExecutor(Executor):
    """Keeps up to `workers` processes, each with a pipe of its own and places for trials.

    A trial goes to the worker that has fewest: cores and GPUs are shared out among workers, so a
    pass is the quicker the fewer share it. One that shall be `apart` waits here until a worker has
    none, and has that worker for itself.

    Processor threads are divided among them, and GPUs in turn (by CUDA_VISIBLE_DEVICES). What a
    worker prints goes to `logs/worker-N.log`. A worker has its own session, so a terminal's
    Ctrl-C reaches the dispatcher alone; the end of its pipe tells it that the dispatcher is gone.

    A plain child process rather than multiprocessing's spawn: that would run the caller's main
    module again, and cannot give each worker its own environment before torch is loaded.
    """

    def __init__(self, resources: Resources, folders: Folders) -> None:
        if resources.cpus is not None or resources.gpus is not None:
            raise InputError(
                "--cpus-per-trial and --gpus-per-trial are for --executor ray; on this machine "
                "cores and GPUs are shared out among --jobs workers"
            )
        suited = default_jobs()
        self.width, self.workers = resources.width(suited), resources.workers(suited)
        self.places = resources.places(suited)
        self.threads = threads_for(self.workers)
        self._logs = folders.logs
        self._gpus = visible_gpus()
        self._slots: dict[int, _Worker] = {}
        self._waiting: list[TrialJob] = []  # for a place
        self._own: list[Event] = []  # said by this object itself
        for slot in range(self.workers):
            self._start(slot)

    @property
    def free(self) -> int:
        together = sum(not job.apart for job in self._waiting)
        return max(0, sum(map(self._room, self._common())) - together)

    def submit(self, job: TrialJob) -> None:
        self._waiting.append(job)
        self._place()

    def _place(self) -> None:
        """Give those that wait their places, as far as there are any."""
        for job in list(self._waiting):
            if job.apart:
                slots = [slot for slot in range(self.workers) if not self._taken(slot)]
            else:
                slots = [slot for slot in self._common() if self._room(slot)]
            if slots:
                self._waiting.remove(job)
                worker = self._living(min(slots, key=self._taken))
                worker.trials[job.number], worker.apart = False, job.apart
                self._send(worker, replace(job, threads=self.threads))

    def _common(self) -> list[int]:
        """The slots that take trials together: all but those with fewest, which are left to empty
        for those that wait to be apart."""
        awaited = sum(job.apart for job in self._waiting)
        return sorted(range(self.workers), key=self._taken)[awaited:]

    def _taken(self, slot: int) -> int:
        worker = self._slots.get(slot)
        return len(worker.trials) if worker else 0

    def _room(self, slot: int) -> int:
        worker = self._slots.get(slot)
        return worker.free if worker else self.places

    def advance(self, number: int) -> None:
        self._command(number, Advance(number))

    def cancel(self, number: int, prune: bool = False) -> None:
        for worker in self._slots.values():
            if number in worker.trials:
                worker.trials[number] = not prune
        self._command(number, Cancel(number, prune))
        if any(job.number == number for job in self._waiting):
            self._waiting = [job for job in self._waiting if job.number != number]
            self._own.append(Stopped(number))

    def events(self, timeout: float) -> list[Event]:
        events, self._own = self._own, []
        slots: dict[object, int] = {w.connection: slot for slot, w in self._slots.items()}
        connections = [worker.connection for worker in self._slots.values()]
        for connection in wait(connections, 0 if events else timeout):
            events += self._hear(slots[connection])
        self._place()
        return events

    def _hear(self, slot: int) -> list[Event]:
        """Take a worker's next word, and all that are left if it leaves with it."""
        worker = self._slots[slot]
        try:
            event = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(slot)
        if isinstance(event, ENDINGS):
            worker.trials.pop(event.number, None)
        if not _leaves(event):
            return [event]
        return [event, *self._last_words(slot), *self._bury(slot, crowded=not _alone(event))]

    def _last_words(self, slot: int) -> list[Event]:
        """Hear how the other trials of a worker that leaves by itself stop."""
        worker, patience, events = self._slots[slot], Patience(_LEAVING), list[Event]()
        while worker.trials and not patience.over:
            try:
                if not worker.connection.poll(patience.pause):
                    continue
                events.append(event := worker.connection.recv())
            except (EOFError, OSError):
                break
            if isinstance(event, ENDINGS):
                worker.trials.pop(event.number, None)
        return events

    def keep_alive(self) -> None:
        for worker in list(self._slots.values()):
            if _has_room(worker.connection):
                self._send(worker, Alive())

    def close(self) -> None:
        for worker in self._slots.values():
            worker.connection.close()
            # It has said all it had to say, or has had its time; Python takes long to leave.
            if all(worker.trials.values()):
                worker.process.kill()
        patience = Patience(_PARTING)
        for worker in self._slots.values():
            _end(worker.process, patience)
        self._slots.clear()

    def _living(self, slot: int) -> _Worker:
        """Return a slot's worker, started where there is none. One that has died between two trials
        is replaced: that is no fault of the next."""
        worker = self._slots.get(slot)
        if worker is not None and not worker.trials and _has_left(worker):
            self._bury(slot)
        if slot not in self._slots:
            self._start(slot)
        return self._slots[slot]

    def _start(self, slot: int) -> None:
        ours, theirs = Pipe()
        with theirs, (self._logs / f"worker-{slot}.log").open("ab") as log:
            process = subprocess.Popen(
                # -P: a file in the current folder must not stand in for a module.
                [sys.executable, "-P", "-m", "mtl.worker", str(theirs.fileno()), str(self.places)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(slot),
                start_new_session=True,
            )
        self._slots[slot] = _Worker(process, ours, _memory_kills(), self.places)

    def _environment(self, slot: int) -> dict[str, str]:
        threads = str(self.threads)
        mine = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        if len(self._gpus) > 1 and self.workers > 1:
            mine["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return {**os.environ, **mine}

    def _command(self, number: int, command: Advance | Cancel) -> None:
        for worker in self._slots.values():
            if number in worker.trials:
                self._send(worker, command)

    def _send(self, worker: _Worker, message: object) -> None:
        # If it is dead, the end of its pipe is the next event.
        with worker.sending, contextlib.suppress(OSError):
            worker.connection.send(message)

    def _bury(self, slot: int, crowded: bool = False) -> list[Event]:
        """Part with a worker that has ended, or is about to; say what becomes of its trials.

        Args:
            crowded: it ends by itself since one of its trials lacked memory: a trial that it never
                began, or that has not said how it stopped, is not lost by its own fault.
        """
        worker = self._slots.pop(slot)
        worker.connection.close()
        exitcode = _end(worker.process, Patience(_LEAVING))
        if crowded and exitcode == 0:
            return [Stopped(number, crowded=True) for number in worker.trials]
        memory = exitcode == -signal.SIGKILL and _memory_kills() > worker.killed_before
        beside = len(worker.trials) - 1
        return [Died(number, exitcode, memory, beside=beside) for number in worker.trials]


def _leaves(event: Event) -> bool:
    """Whether a worker leaves with this, once its other trials have stopped, too."""
    lacking = isinstance(event, Failed) and event.memory
    return lacking or (isinstance(event, Stopped) and (event.alone or event.crowded))


def _alone(event: Event) -> bool:
    return isinstance(event, Stopped) and event.alone


def _has_left(worker: _Worker) -> bool:
    """Whether an idle worker has ended, or is about to: all that it can still say is good-bye."""
    return worker.process.poll() is not None or worker.connection.poll()


def _has_room(connection: Connection) -> bool:
    """Whether a word can be said without waiting. A worker that is stopped for an hour reads
    nothing, and whoever keeps the lease must not wait for it."""
    try:
        return bool(select.select([], [connection], [], 0)[1])
    except (OSError, ValueError):  # closed by another thread: its worker was replaced just now
        return False


def _end(process: subprocess.Popen, patience: Patience) -> int:
    """Wait for a process to leave by itself, and kill it if it does not; return how it ended."""
    while not patience.over:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(patience.pause)
    process.kill()
    return process.wait()


def _memory_kills() -> int:
    """How many processes this system has ended for want of memory; 0 where it does not say."""
    try:
        counters = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    found = re.search(r"^oom_kill (\d+)$", counters, re.MULTILINE)
    return int(found[1]) if found else 0
