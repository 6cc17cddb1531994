"""Keeping workers busy with a study's trials, until it has them all or is interrupted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from minbert import InputError

from ..common.faults import explain
from ..common.patience import Patience
from ..common.signals import Interrupts
from ..executors.base import Executor
from ..storage.lease import Lease, LeaseLostError
from ..trials.replicates import missing
from ..trials.sampling import ask, ask_queued, resume
from ..worker.messages import ENDINGS
from .lifecycle import Ask, TrialLifecycle
from .outage import LeftError, Outage
from .outsiders import StudyGoneError
from .synchronous import Barrier

if TYPE_CHECKING:
    from ..worker.messages import Event
    from .view import View

_TICK = 0.25  # seconds between looks at signals
_LOOK = 1.0  # seconds between looks at what others do to the study
_GRACE = 3.0  # seconds that interrupted trials have to checkpoint

Done = TypeVar("Done")


class Dispatcher:
    """Keeps workers busy until the study has its trials.

    Every step that needs the database waits while that is away, and is taken again when it is back
    (see `mtl.dispatch.outage`). Until then workers train on.

    Args:
        round_size: trials that are started together; None: whenever a place is free.
    """

    def __init__(
        self,
        lifecycle: TrialLifecycle,
        view: View,
        lease: Lease,
        interrupts: Interrupts,
        outage: Outage,
        pool: Executor,
        round_size: int | None,
    ) -> None:
        self._lifecycle, self._view, self._pool = lifecycle, view, pool
        self._lease, self._interrupts, self._outage = lease, interrupts, outage
        self._left: deque[int] = deque()
        self._again: deque[int] = deque()  # lost their workers, and go on before all others
        self._heard: deque[Event] = deque()  # from workers, not looked at yet
        self._due: deque[Event] = deque()  # to be handled now
        self._round_size = round_size
        self._barrier = None if round_size is None else Barrier(lifecycle.spec.pruner != "none")
        self._gathering = True  # trials may join those that run
        self._looked = 0.0
        self.interrupted = False

    def run(self) -> None:
        lifecycle, spec = self._lifecycle, self._lifecycle.spec
        for note in spec.notes:
            self._view.message(note)
        ended = self._patiently(self._open)
        name, pool, tally = lifecycle.study.study_name, self._pool, lifecycle.tally
        total = tally.count + missing(lifecycle.study, spec, tally)
        self._view.study_started(spec, name, ended, total, pool.workers, pool.places)
        self._work(pool)

    def _open(self) -> int:
        """Open the study's run; return how many trials have ended."""
        self._lifecycle.sweep()
        self._find_left()
        self._lifecycle.runs.open_study()
        return self._lifecycle.tally.ended

    def _work(self, pool: Executor) -> None:
        self._interrupts.preparing = False
        try:
            while not self._interrupts.asked and self._patiently(self._fill):
                self._listen(pool, _TICK)
            if self._interrupts.asked:
                self._interrupt(pool)
            else:
                self._patiently(self._close)
        except StudyGoneError:
            pool.close()
            self._leave(noted=False)
            raise
        except LeaseLostError:
            raise  # trials and runs belong to another dispatcher now: not a word is written
        except LeftError:
            self._let_go(pool)
            pool.close()
            self._leave_as_it_is(noted=False)
        except InputError:
            # What was given cannot be trained with: nothing has been lost, nothing is recorded
            # but the wish, and the same command goes on when it is put right.
            pool.close()
            self._leave_as_it_is()
            raise
        except Exception as error:
            if isinstance(error, KeyError) and self._lifecycle.gone:
                pool.close()
                self._leave(noted=False)
                raise StudyGoneError(self._lifecycle.study.study_name) from error
            line = explain(error, self._lifecycle.home.path)
            if line is None:
                raise
            pool.close()
            self._leave_as_it_is()
            raise InputError(line) from error

    def _close(self) -> None:
        self._lifecycle.close_study()
        self._lifecycle.poll()

    # ---- while the database is away -------------------------------------------------------------

    def _patiently(self, step: Callable[[], Done]) -> Done:
        return self._outage.through(step, self._meanwhile, self._put_right)

    def _meanwhile(self, seconds: float) -> None:
        """Keep workers at their work, as far as that needs no database."""
        self._heard.extend(self._pool.events(seconds))
        for events in (self._due, self._heard):
            kept = [event for event in events if not self._spared(event)]
            events.clear()
            events.extend(kept)

    def _spared(self, event: Event) -> bool:
        """Do about an event what can be done; say whether that was everything."""
        answer = self._lifecycle.while_away(event)
        if answer == "advance":
            self._pool.advance(event.number)
        return answer != "keep"

    def _put_right(self) -> None:
        """Find what was written down though no answer came, and write down what waited."""
        self._lease.hold()
        self._find_left()
        self._lifecycle.catch_up()

    def _find_left(self) -> None:
        """Find the trials that were begun, and that no worker has."""
        known = {*self._lifecycle.running, *self._again}
        self._lifecycle.tally.update()
        self._left = deque(n for n in self._lifecycle.tally.running if n not in known)

    # ---- the work -------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Give every free place a trial; say whether anything is still to be done."""
        lifecycle, pool = self._lifecycle, self._pool
        self._stop_what_others_told()
        while self._again:
            self._submit(pool, resume, self._again[0])
            self._again.popleft()
        self._gathering |= not lifecycle.running
        while pool.free and self._gathering and not self._interrupts.asked:
            if self._left:
                self._submit(pool, resume, self._left[0])
                self._left.popleft()
                continue
            lifecycle.tally.update()
            if self._full:
                break
            if lifecycle.tally.waiting:
                self._submit(pool, ask_queued, None)
            elif missing(lifecycle.study, lifecycle.spec, lifecycle.tally):
                self._submit(pool, ask, None)
            else:
                break
        self._gathering = self._barrier is None
        return bool(lifecycle.running or self._left)

    @property
    def _full(self) -> bool:
        """Whether the next trial would belong to another round than those that run."""
        if self._round_size is None or not self._lifecycle.running:
            return False
        return self._lifecycle.tally.count % self._round_size == 0

    def _submit(self, pool: Executor, ask: Ask, number: int | None) -> None:
        self._lease.hold()
        job = self._lifecycle.take_up(ask, number)
        if job is not None:
            pool.submit(job)

    def _stop_what_others_told(self) -> None:
        """Now and then, look at what others have done to the study with Optuna's own interface."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        for number in self._lifecycle.told_by_others():
            self._pool.cancel(number)

    def _listen(self, pool: Executor, timeout: float) -> None:
        self._heard.extend(pool.events(timeout))
        self._patiently(self._attend)

    def _attend(self) -> None:
        """Handle what was heard."""
        while self._heard:
            event = self._heard.popleft()
            if self._barrier is None or not self._barrier.hold(event):
                self._due.append(event)
        self._handle_due()
        # Held back until now, and after an interrupt for the next life.
        while self._barrier is not None and not self._lifecycle.leaving:
            released = self._barrier.release(self._lifecycle.running)
            if not released:
                break
            self._due.extend(released)
            self._handle_due()
        self._lifecycle.poll()

    def _handle_due(self) -> None:
        while self._due:
            self._lease.hold()
            self._handle(self._due[0], self._pool)
            self._due.popleft()

    def _handle(self, event: Event, pool: Executor) -> None:
        answer = self._lifecycle.handle(event)
        if answer == "advance":
            pool.advance(event.number)
        elif answer == "prune":
            pool.cancel(event.number, prune=True)
        elif answer == "stop":
            pool.cancel(event.number)
        elif answer == "again":
            self._again.append(event.number)

    # ---- leaving --------------------------------------------------------------------------------

    def _interrupt(self, pool: Executor) -> None:
        """Let trials that train checkpoint; what has not by the end of the grace, or when a second
        signal comes, is ended, as is what still reads its data."""
        self._ask_to_stop(pool)
        patience = Patience(_GRACE)
        while self._training() and not patience.over and not self._interrupts.hurried:
            self._listen(pool, _TICK)
        pool.close()
        self._leave()

    def _let_go(self, pool: Executor) -> None:
        """The same where nothing can be written down: what workers say comes again in the trials'
        next lives."""
        self._ask_to_stop(pool)
        ended = {event.number for event in (*self._due, *self._heard) if isinstance(event, ENDINGS)}
        patience = Patience(_GRACE)
        while self._training() - ended and not patience.over:
            if self._interrupts.hurried:
                break
            ended |= {e.number for e in pool.events(_TICK) if isinstance(e, ENDINGS)}

    def _ask_to_stop(self, pool: Executor) -> None:
        self._lifecycle.leaving = True
        for number in list(self._lifecycle.running):
            pool.cancel(number)

    def _training(self) -> set[int]:
        held = self._barrier.ended if self._barrier is not None else set()
        return {n for n, trial in self._lifecycle.running.items() if trial.begun} - held

    def _leave(self, noted: bool = True) -> None:
        self.interrupted = True
        self._lifecycle.leave(noted)

    def _leave_as_it_is(self, noted: bool = True) -> None:
        """Leave; what cannot be written down now, the next dispatcher finds and puts right."""
        try:
            self._leave(noted)
        except Exception as error:
            if explain(error, self._lifecycle.home.path) is None:
                raise
