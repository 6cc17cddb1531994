"""What a dispatcher says to a worker, heard while the worker trains."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from ..common.patience import LOOK, Patience, sleep_awake
from .messages import LEFT_ALONE, SILENCE, Advance, Alive, Cancel, TrialJob

ORPHAN_GRACE = 10.0
"""Seconds from the dispatcher's death to this process' end, checkpointed by then or not."""
_LAST_WORD = 1.0  # seconds that a dispatcher which stops a trial has to speak of its evaluation


class Line(Protocol):
    """The way from a dispatcher to a worker: a `multiprocessing.connection.Connection`, say."""

    def poll(self, timeout: float) -> bool:
        """Wait so many seconds for a word; say whether there is one.

        Raises:
            EOFError, OSError: the dispatcher is gone.
        """

    def recv(self) -> TrialJob | Advance | Cancel | Alive:
        """Return the next word; raises as `poll`."""


class Commands:
    """The dispatcher's commands, read by a thread so that training never waits for them.

    Args:
        leave: ends this process, where its trial is not checkpointed in time by one that is alone.

    Attributes:
        stopping: set when the trial shall be checkpointed and left: asked for, or alone.
        alone: the dispatcher is gone, or has said nothing for `SILENCE` seconds.
    """

    def __init__(
        self, line: Line, leave: Callable[[], object] = lambda: os._exit(LEFT_ALONE)
    ) -> None:
        self.stopping = threading.Event()
        self.alone = False
        self._line, self._leave = line, leave
        self._jobs: queue.SimpleQueue[TrialJob | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Advance | Cancel | None] = queue.SimpleQueue()
        self._number: int | None = None
        self._closed = False
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def next_job(self) -> TrialJob | None:
        """Wait for a trial; None when there will be no more."""
        return self._jobs.get()

    def _begin(self, job: TrialJob) -> None:
        """Take up a trial: what is said from now on is said to it."""
        self._number = job.number
        while not self._answers.empty():
            self._answers.get()
        self.stopping.clear()
        self._jobs.put(job)

    def wait_for_answer(self) -> Advance | Cancel | None:
        """Wait for what comes after an evaluation: Advance, or Cancel to prune. None when the
        dispatcher is gone, or wants the trial to stop and says nothing of the evaluation: it has
        not noted it then, and must hear of it again."""
        while True:
            try:
                return self._answers.get(timeout=_LAST_WORD)
            except queue.Empty:
                if self.stopping.is_set():
                    return None

    def close(self) -> None:
        """Hear no more; the process goes on."""
        self._closed = True

    def _read(self) -> None:
        # Counted in looks: who was suspended together with the dispatcher has missed nothing.
        silence = Patience(SILENCE)
        while not silence.over:
            try:
                if not self._line.poll(LOOK):
                    continue
                message = self._line.recv()
            except (EOFError, OSError):
                break
            silence.renew()
            if isinstance(message, TrialJob):
                self._begin(message)
            elif isinstance(message, Advance | Cancel) and message.number == self._number:
                if isinstance(message, Cancel) and not message.prune:
                    self.stopping.set()
                else:
                    self._answers.put(message)
        self._orphaned()

    def _orphaned(self) -> None:
        """Checkpoint and leave: another dispatcher may have taken over by now. An evaluation can
        outlast that one's patience, and the lock must come free. What is lost is trained again,
        from the last checkpoint, to the same bits."""
        if self._closed:
            return
        self.alone = True
        self.stopping.set()
        self._answers.put(None)
        self._jobs.put(None)
        sleep_awake(ORPHAN_GRACE)
        if not self._closed:
            self._leave()
