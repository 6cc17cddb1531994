"""One dispatcher a study: a lease in the study's own database.

A row a study says who dispatches it. Taking and renewing it are single conditional statements, so
two dispatchers cannot both succeed, on SQLite as on PostgreSQL. A lease that is not renewed for
its term can be taken over; at once, if its process was on this host and is dead.
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

from ..common.faults import away
from .server import alone

if TYPE_CHECKING:
    from sqlalchemy import Engine

TERM = 30.0
"""Seconds without renewal after which a lease is nobody's."""

_TABLE = sa.Table(
    "mtl_leases",
    sa.MetaData(),
    sa.Column("study", sa.String(512), primary_key=True),
    sa.Column("holder", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.Float, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("renewed", sa.Float, nullable=False),
)


class LeaseLostError(InputError):
    """Another dispatcher holds the study now: this one must not write any more."""


class Lease:
    """The right to dispatch a study. A context manager: taken at entry, given back at exit.

    A thread of its own renews it, since the dispatcher may be busy for longer than the term. While
    the database is away nobody can take the lease either; it is kept by whoever comes first then.
    Times are seconds since the epoch: hosts that share a database need clocks that agree to a
    few seconds.

    Args:
        engine: the study's database.
        study: the study's name.
        term: seconds without renewal after which others may take it.

    Attributes:
        also: called as often as the lease is renewed, by its thread: workers hear of a dispatcher
            that lives, and of none that is suspended.

    Raises:
        InputError: another dispatcher holds it (at entry).
    """

    def __init__(self, engine: Engine, study: str, term: float = TERM) -> None:
        self._engine, self._study, self._term = engine, study, term
        self._holder = uuid.uuid4().hex
        self._renewed = 0.0
        self._away = False
        self._ended = threading.Event()
        self.also: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        # One statement at a time: the dispatcher's thread and the renewing one share the row.
        self._lock = threading.Lock()

    def __enter__(self) -> Lease:
        with self._engine.begin() as connection:
            if not sa.inspect(connection).has_table(_TABLE.name):  # it cannot be made twice
                alone(connection)
                connection.execute(sa.schema.CreateTable(_TABLE, if_not_exists=True))
        for _ in range(3):
            if self._insert() or self._take_over():
                self._thread.start()
                return self
        raise InputError(f"study {self._study!r} changes hands; try again")

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(timeout=5)
        if self._away or self._thread.is_alive():
            return  # the database is away: the lease ends by its term, or with this process
        try:
            with self._lock, self._engine.begin() as connection:
                connection.execute(_TABLE.delete().where(*self._mine()))
        except sa.exc.SQLAlchemyError as error:
            if away(error) is None:
                raise

    def hold(self) -> None:
        """Make sure that the lease is still ours, before a write that needs it.

        Raises:
            LeaseLostError: it was taken over, say while this process was suspended.
        """
        if time.time() - self._renewed > self._term / 2:
            self._renew()

    def _mine(self) -> tuple[Any, Any]:
        return _TABLE.c.study == self._study, _TABLE.c.holder == self._holder

    def _insert(self) -> bool:
        """Take the lease if nobody has it; say whether that succeeded."""
        try:
            with self._engine.begin() as connection:
                connection.execute(_TABLE.insert().values(study=self._study, **self._row()))
        except sa.exc.IntegrityError:
            return False
        return True

    def _take_over(self) -> bool:
        """Take the lease of a dispatcher that is gone; False if another was quicker."""
        with self._engine.begin() as connection:
            row = connection.execute(_TABLE.select().where(_TABLE.c.study == self._study)).first()
        if row is None:
            return False
        if not _is_gone(row, self._term):
            raise InputError(_refusal(self._study, row))
        same = (
            _TABLE.c.study == self._study,
            _TABLE.c.holder == row.holder,
            _TABLE.c.renewed == row.renewed,
        )
        with self._engine.begin() as connection:
            taken = connection.execute(_TABLE.update().where(*same).values(**self._row()))
        return taken.rowcount == 1

    def _row(self) -> dict[str, Any]:
        self._renewed = now = time.time()
        return {
            "holder": self._holder,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "born": _born(os.getpid()),
            "since": now,
            "renewed": now,
        }

    def _renew(self) -> None:
        with self._lock:
            now = time.time()
            with self._engine.begin() as connection:
                done = connection.execute(_TABLE.update().where(*self._mine()).values(renewed=now))
            if done.rowcount != 1:
                raise LeaseLostError(
                    f"another dispatcher has taken over study {self._study!r}, which this one "
                    f"had left unattended for {self._term:.0f} s; this one stops"
                )
            self._renewed, self._away = now, False

    def _keep(self) -> None:
        while not self._ended.wait(self._term / 3):
            self.also()
            try:
                self._renew()
            except LeaseLostError:
                self._renewed = 0.0  # so that hold() tells the dispatcher before its next write
                return
            except sa.exc.SQLAlchemyError as error:
                # Away, or busy; the next round tries again.
                self._away = away(error) is not None


def dispatcher_of(engine: Engine, study: str, term: float = TERM) -> str | None:
    """Say who dispatches a study now, in words; None if nobody does. Reads only."""
    return dispatchers(engine, term).get(study)


def has_leases(engine: Engine) -> bool:
    """Say whether a lease was ever taken in this database. Reads only."""
    return sa.inspect(engine).has_table(_TABLE.name)


def dispatchers(engine: Engine, term: float = TERM) -> dict[str, str]:
    """Say who dispatches which study now: studies with a process in words. Reads only."""
    if not has_leases(engine):
        return {}
    with engine.connect() as connection:
        rows = connection.execute(_TABLE.select()).all()
    held = [row for row in rows if not _is_gone(row, term)]
    return {row.study: f"process {row.pid} on {row.host}" for row in held}


def _is_gone(row: Any, term: float) -> bool:
    if time.time() - row.renewed > term:
        return True
    # The time of birth tells a process from a later one with the same number.
    return row.host == socket.gethostname() and abs(_born(row.pid) - row.born) > 2.0


def _born(pid: int) -> float:
    """When a process was started, in seconds since the epoch; 0 if there is none (a zombie is
    none)."""
    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return 0.0


def _refusal(study: str, row: Any) -> str:
    since = datetime.fromtimestamp(row.since).strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"study {study!r} is being run by process {row.pid} on {row.host} since {since}; "
        "wait for it, stop it, or use --as NAME for a study of your own"
    )
