"""What a dispatcher says to a worker, heard while the worker trains."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from ..common.patience import LOOK, Patience, sleep_awake
from .messages import LEFT_ALONE, SILENCE, Advance, Alive, Cancel, Stopped, TrialJob

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


class Orders:
    """What the dispatcher says to one trial, and when the trial shall stop.

    Attributes:
        job: the trial.
        stopping: set when it shall be checkpointed and left: asked for, or for what follows.
        alone: the dispatcher is gone, or has said nothing for `SILENCE` seconds.
        crowded: another trial of this process lacks memory, and the process ends.
    """

    def __init__(self, job: TrialJob) -> None:
        self.job = job
        self.stopping = threading.Event()
        self.alone = self.crowded = False
        self._answers: queue.SimpleQueue[Advance | Cancel | None] = queue.SimpleQueue()

    def hear(self, word: Advance | Cancel) -> None:
        """Take a word of the dispatcher's."""
        if isinstance(word, Cancel) and not word.prune:
            self.stopping.set()
        else:
            self._answers.put(word)

    def stop(self, *, alone: bool = False, crowded: bool = False) -> None:
        """Have the trial checkpointed and left."""
        self.alone, self.crowded = self.alone or alone, self.crowded or crowded
        self.stopping.set()
        self._answers.put(None)

    def stopped(self) -> Stopped:
        """Return what is said of the trial once it has stopped."""
        return Stopped(self.job.number, self.alone, self.crowded)

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


class Commands:
    """The dispatcher's commands, read by a thread so that training never waits for them.

    Args:
        leave: ends this process, where its trials are not checkpointed in time by one that is
            alone.

    Attributes:
        alone: the dispatcher is gone, or has said nothing for `SILENCE` seconds.
    """

    def __init__(
        self, line: Line, leave: Callable[[], object] = lambda: os._exit(LEFT_ALONE)
    ) -> None:
        self.alone = False
        self._line, self._leave = line, leave
        self._begun: queue.SimpleQueue[Orders | None] = queue.SimpleQueue()
        # By number. Threads need no lock for it: each of them does one thing to it at a time.
        self._under_way: dict[int, Orders] = {}
        self._closed = False
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def next_job(self) -> Orders | None:
        """Wait for a trial; None when there will be no more."""
        return self._begun.get()

    def over(self, orders: Orders) -> int:
        """Note that a trial has ended; return how many others are under way."""
        self._under_way.pop(orders.job.number, None)
        return len(self._under_way)

    def stop(self) -> None:
        """Have every trial checkpointed and left. Signal handlers may call it."""
        for orders in list(self._under_way.values()):
            orders.stopping.set()

    def make_room(self) -> None:
        """Have every trial stop since memory is short, and take no more: the process ends."""
        for orders in list(self._under_way.values()):
            orders.stop(crowded=True)
        self._begun.put(None)

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
                self._under_way[message.number] = orders = Orders(message)
                self._begun.put(orders)
            elif isinstance(message, Advance | Cancel):
                self._tell(message)
        self._orphaned()

    def _tell(self, word: Advance | Cancel) -> None:
        orders = self._under_way.get(word.number)
        if orders is not None:  # else it has just ended
            orders.hear(word)

    def _orphaned(self) -> None:
        """Checkpoint and leave: another dispatcher may have taken over by now. An evaluation can
        outlast that one's patience, and the locks must come free. What is lost is trained again,
        from the last checkpoint, to the same bits."""
        if self._closed:
            return
        self.alone = True
        for orders in list(self._under_way.values()):
            orders.stop(alone=True)
        self._begun.put(None)
        sleep_awake(ORPHAN_GRACE)
        if not self._closed:
            self._leave()
