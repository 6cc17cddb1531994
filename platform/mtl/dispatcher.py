"""Keeping workers busy with a study's trials, until it has them all or is interrupted."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from minbert import InputError

from .ask import ask, ask_again
from .batches import Batch
from .executors import Executor
from .faults import explain
from .interrupts import Interrupts
from .lease import Lease, LeaseLostError
from .replicates import missing
from .trials import Ask, Trials

if TYPE_CHECKING:
    from .events import Event
    from .view import View

_TICK = 0.25  # seconds between looks at signals
_GRACE = 3.0  # seconds that interrupted trials have to checkpoint


class Dispatcher:
    """Keeps workers busy until the study has its trials.

    Args:
        batch: trials that are started together; None: whenever a worker is free.
    """

    def __init__(
        self,
        trials: Trials,
        view: View,
        lease: Lease,
        interrupts: Interrupts,
        pool: Executor,
        batch: int | None,
    ) -> None:
        self._trials, self._view, self._pool = trials, view, pool
        self._lease, self._interrupts = lease, interrupts
        self._left = deque(trials.tally.running)
        self._again: deque[int] = deque()  # lost their workers, and go on before all others
        self._size = batch
        self._batch = None if batch is None else Batch(trials.spec.pruner != "none")
        self.interrupted = False

    def run(self) -> None:
        trials, spec = self._trials, self._trials.spec
        trials.sweep()
        if spec.cap_note:
            self._view.message(spec.cap_note)
        trials.runs.open_study()
        self._view.study_started(
            spec, trials.study.study_name, trials.tally.ended, spec.total, self._pool.jobs
        )
        self._work(self._pool)

    def _work(self, pool: Executor) -> None:
        try:
            while not self._interrupts.asked and self._fill(pool):
                self._listen(pool, _TICK)
            if self._interrupts.asked:
                self._interrupt(pool)
            else:
                self._trials.close_study()
                self._trials.look_around()
        except LeaseLostError:
            raise  # trials and runs belong to another dispatcher now: not a word is written
        except InputError:
            # What was given cannot be trained with: nothing has been lost, nothing is recorded
            # but the wish, and the same command goes on when it is put right.
            pool.close()
            self._leave_as_it_is()
            raise
        except Exception as error:
            line = explain(error, self._trials.home.path)
            if line is None:
                raise
            pool.close()
            self._leave_as_it_is()
            raise InputError(line) from error

    def _fill(self, pool: Executor) -> bool:
        """Give every free worker a trial; say whether anything is still to be done."""
        trials = self._trials
        while self._again:
            self._submit(pool, ask_again, self._again.popleft())
        batch_runs = self._batch is not None and bool(trials.running)
        while pool.free and not batch_runs and not self._interrupts.asked:
            if self._left:
                self._submit(pool, ask_again, self._left.popleft())
                continue
            trials.tally.update()
            if self._full or not missing(trials.study, trials.spec, trials.tally):
                break
            self._submit(pool, ask, None)
        return bool(trials.running or self._left)

    @property
    def _full(self) -> bool:
        """Whether the next trial would belong to another batch than those that run."""
        if self._size is None or not self._trials.running:
            return False
        return self._trials.tally.count % self._size == 0

    def _submit(self, pool: Executor, ask: Ask, number: int | None) -> None:
        self._lease.hold()
        pool.submit(self._trials.take_up(ask, number, pool.jobs))

    def _listen(self, pool: Executor, timeout: float) -> None:
        for event in pool.events(timeout):
            self._lease.hold()
            if self._batch is None or not self._batch.hold(event):
                self._handle(event, pool)
        # Held back until now, and after an interrupt for the next life.
        while self._batch is not None and not self._trials.leaving:
            released = self._batch.release(self._trials.running)
            if not released:
                break
            for event in released:
                self._handle(event, pool)
        self._trials.look_around()

    def _handle(self, event: Event, pool: Executor) -> None:
        answer = self._trials.handle(event)
        if answer == "advance":
            pool.advance(event.number)
        elif answer == "prune":
            pool.cancel(event.number, prune=True)
        elif answer == "again":
            self._again.append(event.number)

    def _interrupt(self, pool: Executor) -> None:
        """Let running trials checkpoint; what has not by the end of the grace, or when a second
        signal comes, is ended."""
        self._trials.leaving = True
        for number in list(self._trials.running):
            pool.cancel(number)
        deadline = time.monotonic() + _GRACE
        while self._training() and time.monotonic() < deadline and not self._interrupts.hurried:
            self._listen(pool, _TICK)
        pool.close()
        self._leave()

    def _training(self) -> set[int]:
        held = self._batch.ended if self._batch is not None else set()
        return self._trials.running.keys() - held

    def _leave(self) -> None:
        self.interrupted = True
        self._trials.leave()

    def _leave_as_it_is(self) -> None:
        """Leave; what cannot be written down now, the next dispatcher finds and puts right."""
        try:
            self._leave()
        except Exception as error:
            if explain(error, self._trials.home.path) is None:
                raise
