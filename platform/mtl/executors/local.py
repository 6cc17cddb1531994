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
import time
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
    number: int | None = None  # the trial it works on
    cancelled: bool = False  # has been told to stop
    sending: threading.Lock = field(default_factory=threading.Lock)


class LocalExecutor(Executor):
    """Keeps up to `jobs` worker processes, each with a pipe of its own.

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
        self.width, self.jobs = resources.width(suited), resources.slots(suited)
        self.threads = threads_for(self.jobs)
        self._logs = folders.logs
        self._gpus = visible_gpus()
        self._slots: dict[int, _Worker] = {}
        for slot in range(self.jobs):
            self._start(slot)

    @property
    def free(self) -> int:
        return self.jobs - sum(worker.number is not None for worker in self._slots.values())

    def submit(self, job: TrialJob) -> None:
        for slot in range(self.jobs):
            worker = self._living(slot)
            if worker.number is None:
                worker.number, worker.cancelled = job.number, False
                self._send(worker, replace(job, threads=self.threads))
                return
        raise RuntimeError("every worker is busy")

    def advance(self, number: int) -> None:
        self._command(number, Advance(number))

    def cancel(self, number: int, prune: bool = False) -> None:
        for worker in self._slots.values():
            if worker.number == number:
                worker.cancelled = not prune
        self._command(number, Cancel(number, prune))

    def events(self, timeout: float) -> list[Event]:
        if not self._slots:
            time.sleep(timeout)
            return []
        slots: dict[object, int] = {w.connection: slot for slot, w in self._slots.items()}
        events: list[Event] = []
        for connection in wait([w.connection for w in self._slots.values()], timeout):
            slot = slots[connection]
            try:
                event = self._slots[slot].connection.recv()
            except (EOFError, OSError):
                events.extend(self._bury(slot))
                continue
            if isinstance(event, ENDINGS):
                self._slots[slot].number = None
            if _leaves(event):
                self._bury(slot)  # it ends by itself, and the next trial gets a new one
            events.append(event)
        return events

    def keep_alive(self) -> None:
        for worker in list(self._slots.values()):
            if _has_room(worker.connection):
                self._send(worker, Alive())

    def close(self) -> None:
        for worker in self._slots.values():
            worker.connection.close()
            # It has said all it had to say, or has had its time; Python takes long to leave.
            if worker.number is None or worker.cancelled:
                worker.process.kill()
        patience = Patience(_PARTING)
        for worker in self._slots.values():
            _end(worker.process, patience)
        self._slots.clear()

    def _living(self, slot: int) -> _Worker:
        """Return a slot's worker, started where there is none. One that has died between two trials
        is replaced: that is no fault of the next."""
        worker = self._slots.get(slot)
        if worker is not None and worker.number is None and _has_left(worker):
            self._bury(slot)
        if slot not in self._slots:
            self._start(slot)
        return self._slots[slot]

    def _start(self, slot: int) -> None:
        ours, theirs = Pipe()
        with theirs, (self._logs / f"worker-{slot}.log").open("ab") as log:
            process = subprocess.Popen(
                # -P: a file in the current folder must not stand in for a module.
                [sys.executable, "-P", "-m", "mtl.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(slot),
                start_new_session=True,
            )
        self._slots[slot] = _Worker(process, ours, _memory_kills())

    def _environment(self, slot: int) -> dict[str, str]:
        threads = str(self.threads)
        mine = {
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        if len(self._gpus) > 1 and self.jobs > 1:
            mine["CUDA_VISIBLE_DEVICES"] = self._gpus[slot % len(self._gpus)]
        return {**os.environ, **mine}

    def _command(self, number: int, command: Advance | Cancel) -> None:
        for worker in self._slots.values():
            if worker.number == number:
                self._send(worker, command)

    def _send(self, worker: _Worker, message: object) -> None:
        # If it is dead, the end of its pipe is the next event.
        with worker.sending, contextlib.suppress(OSError):
            worker.connection.send(message)

    def _bury(self, slot: int) -> list[Event]:
        worker = self._slots.pop(slot)
        worker.connection.close()
        exitcode = _end(worker.process, Patience(_LEAVING))
        memory = exitcode == -signal.SIGKILL and _memory_kills() > worker.killed_before
        return [] if worker.number is None else [Died(worker.number, exitcode, memory)]


def _leaves(event: Event) -> bool:
    """Whether this is the last that a worker says."""
    return (isinstance(event, Failed) and event.memory) or (
        isinstance(event, Stopped) and event.alone
    )


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
