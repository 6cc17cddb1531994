"""One dispatcher a study: a lease in the study's own database.

A row a study says who dispatches it. Taking and renewing it are single conditional statements, so
two dispatchers cannot both succeed, on SQLite as on PostgreSQL. A lease whose process is known to
be dead is taken at once. Of another, what counts is whether it is renewed while one looks: clocks
are set, and differ between hosts.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa

from minbert import InputError

from ..common.birth import mark_of
from ..common.faults import away
from ..common.patience import Patience
from .lease_table import TABLE, Row, clock, exists_in, prepare, read_row, read_rows

if TYPE_CHECKING:
    from sqlalchemy import Engine

TERM = 30.0
"""Seconds without renewal after which a lease is nobody's."""


class LeaseLostError(InputError):
    """Another dispatcher holds the study now: this one must not write any more."""


class Lease:
    """The right to dispatch a study. A context manager: taken at entry, given back at exit.

    A thread of its own renews it, since the dispatcher may be busy for longer than the term. While
    the database is away nobody can take the lease either; it is kept by whoever comes first then.

    Args:
        engine: the study's database.
        study: the study's name.
        term: seconds without renewal after which others may take it.
        say: is told why it takes a term, where a lease that seems to be left has to be watched.
        beat: seconds between calls of `also`; None: as often as the lease is renewed.

    Attributes:
        also: called all the while, by a thread of its own: workers hear of a dispatcher that lives,
            whatever its database does, and of none that is suspended.

    Raises:
        InputError: another dispatcher holds it (at entry).
    """

    def __init__(
        self,
        engine: Engine,
        study: str,
        term: float = TERM,
        say: Callable[[str], object] = lambda _: None,
        beat: float | None = None,
    ) -> None:
        self._engine, self._study, self._term, self._say = engine, study, term, say
        self._beat = term / 3 if beat is None else beat
        self._holder = uuid.uuid4().hex
        self._renewed: list[float] = []  # by each clock; empty: not, or not any more
        self._away = False
        self._ended = threading.Event()
        self.also: Callable[[], None] = lambda: None
        self._threads = [
            threading.Thread(target=work, name="lease", daemon=True)
            for work in (self._keep, self._show)
        ]
        # One statement at a time: the dispatcher's thread and the renewing one share the row.
        self._lock = threading.Lock()

    def __enter__(self) -> Lease:
        prepare(self._engine)
        for _ in range(3):
            if self._insert() or self._take_over():
                for thread in self._threads:
                    thread.start()
                return self
        raise InputError(f"study {self._study!r} changes hands; try again")

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=5)
        if self._away or self._threads[0].is_alive():
            return  # the database is away: the lease ends by its term, or with this process
        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(TABLE.delete().where(*self._mine()))
        except sa.exc.SQLAlchemyError as error:
            if away(error) is None:
                raise

    def hold(self) -> None:
        """Make sure that the lease is still ours, before a write that needs it.

        Raises:
            LeaseLostError: it was taken over, say while this process was suspended.
        """
        ages = [abs(now - then) for now, then in zip(_clocks(), self._renewed, strict=False)]
        if not ages or max(ages) > self._term / 2:
            self._renew()

    def _mine(self) -> tuple[Any, Any]:
        return TABLE.c.study == self._study, TABLE.c.holder == self._holder

    # ---- taking it ------------------------------------------------------------------------------

    def _insert(self) -> bool:
        """Take the lease if nobody has it; say whether that succeeded."""
        clocks = _clocks()
        try:
            with self._engine.begin() as connection:
                connection.execute(TABLE.insert().values(study=self._study, **self._row()))
        except sa.exc.IntegrityError:
            return False
        self._renewed = clocks
        return True

    def _take_over(self) -> bool:
        """Take the lease of a dispatcher that is gone; False if another was quicker."""
        row = read_row(self._engine, self._study)
        if row is None:
            return False
        if row.lives is not False and (row.is_fresh(self._term) or not self._keeps_silent(row)):
            raise InputError(_refusal(self._study, row))
        same = (
            TABLE.c.study == self._study,
            TABLE.c.holder == row.holder,
            TABLE.c.renewed == row.renewed,
        )
        clocks = _clocks()
        with self._engine.begin() as connection:
            taken = connection.execute(TABLE.update().where(*same).values(**self._row()))
        self._renewed = clocks if taken.rowcount == 1 else []
        return taken.rowcount == 1

    def _keeps_silent(self, row: Row) -> bool:
        """Watch a lease for its term; say whether its holder has given no sign of life.

        That it was not renewed lately by the clock says little: the clock may have been set.
        """
        self._say(
            f"{row.who}, which ran study {self._study!r}, has given no sign "
            f"of life lately; if it gives none for {self._term:.0f} s, the study is taken over"
        )
        patience = Patience(self._term)
        while not patience.over:
            time.sleep(min(patience.pause, self._term / 10))
            now = read_row(self._engine, self._study)
            if now is None or now.lives is False:
                return True
            if (now.holder, now.renewed) != (row.holder, row.renewed):
                return False
        return True

    def _row(self) -> dict[str, Any]:
        now = clock(self._engine)
        return {
            "holder": self._holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": psutil.Process().create_time(),
            "since": now,
            "renewed": now,
            "process": mark_of(os.getpid()),
        }

    # ---- keeping it -----------------------------------------------------------------------------

    def _renew(self) -> None:
        with self._lock:
            clocks = _clocks()
            renewed = TABLE.update().where(*self._mine()).values(renewed=clock(self._engine))
            with self._engine.begin() as connection:
                done = connection.execute(renewed)
            if done.rowcount != 1:
                self._renewed = []
                raise LeaseLostError(
                    f"another dispatcher has taken over study {self._study!r}, which this one "
                    f"had left unattended for {self._term:.0f} s; this one stops"
                )
            self._renewed, self._away = clocks, False

    def _keep(self) -> None:
        while not self._ended.wait(self._term / 3):
            try:
                self._renew()
            except LeaseLostError:
                self._ended.set()  # hold() tells the dispatcher before its next write
            except sa.exc.SQLAlchemyError as error:
                # Away, or busy; the next round tries again.
                self._away = away(error) is not None

    def _show(self) -> None:
        while not self._ended.wait(self._beat):
            self.also()


def dispatcher_of(engine: Engine, study: str, term: float = TERM) -> str | None:
    """Say who dispatches a study now, in words; None if nobody does. Reads only."""
    return dispatchers(engine, term).get(study)


def has_leases(engine: Engine) -> bool:
    """Say whether a lease was ever taken in this database. Reads only."""
    return exists_in(engine)


def dispatchers(engine: Engine, term: float = TERM) -> dict[str, str]:
    """Say who dispatches which study now: studies with a process in words. Reads only."""
    rows = read_rows(engine) if exists_in(engine) else []
    return {row.study: row.who for row in rows if row.is_held(term)}


def _clocks() -> list[float]:
    """Return the time by each clock: one that goes on while the machine sleeps, where there is one,
    and the one that is set when a frozen machine has woken up."""
    asleep_too = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return [time.clock_gettime(asleep_too), time.time()]


def _refusal(study: str, row: Row) -> str:
    since = datetime.fromtimestamp(row.since).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is being run by {row.who} since {since}; "
        "wait for it, stop it, or use --as NAME for a study of your own"
    )
