"""The table of leases: a row a study, which says who dispatches it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..common.birth import exists, lives
from .server import alone

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

TABLE = sa.Table(
    "mtl_leases",
    sa.MetaData(),
    sa.Column("study", sa.String(512), primary_key=True),
    sa.Column("holder", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    # By the clock; only what was written before there was `process` is judged by it, there.
    sa.Column("born", sa.Float, nullable=False),
    sa.Column("since", sa.Float, nullable=False),
    sa.Column("renewed", sa.Float, nullable=False),
    # See `mtl.common.birth.mark_of`. Null in rows of version 0.1.0.
    sa.Column("process", sa.String(255)),
)
_ADDED = sa.DDL(f"ALTER TABLE {TABLE.name} ADD COLUMN process VARCHAR(255)")
# A server's clock is one for all of its hosts.
_CLOCK = {"postgresql": sa.extract("epoch", sa.func.clock_timestamp())}


@dataclass(frozen=True)
class Row:
    """A lease as it stands.

    Attributes:
        study, holder, host, pid, since, renewed: as in the table. age: seconds since it was
            renewed, by the database's clock; less than 0 if that was set back.
        lives: whether its process does; None where that cannot be known from here.
    """

    study: str
    holder: str
    host: str
    pid: int
    since: float
    renewed: float
    age: float
    lives: bool | None

    def is_fresh(self, term: float) -> bool:
        """Say whether it was renewed within its term, if the clock was not set."""
        return abs(self.age) <= term

    def is_held(self, term: float) -> bool:
        """Say whether somebody seems to have it, without watching it."""
        return self.age <= term if self.lives is None else self.lives

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}"


def prepare(engine: Engine) -> None:
    """Make the table; give one of an earlier version what it lacks."""
    try:
        with engine.begin() as connection:
            if not _columns(connection):  # it cannot be made twice
                alone(connection)
                connection.execute(sa.schema.CreateTable(TABLE, if_not_exists=True))
        with engine.begin() as connection:
            if TABLE.c.process.name not in _columns(connection):
                alone(connection)
                connection.execute(_ADDED)
    except sa.exc.DBAPIError:
        with engine.connect() as connection:
            if TABLE.c.process.name not in _columns(connection):
                raise  # not because another was quicker


def clock(engine: Engine) -> sa.ColumnElement[Any]:
    """Return the time by the database's clock, in seconds since the epoch, as an expression."""
    own = _CLOCK.get(engine.dialect.name)
    return sa.literal(time.time()) if own is None else own


def exists_in(engine: Engine) -> bool:
    """Say whether there is a table. Reads only."""
    return sa.inspect(engine).has_table(TABLE.name)


def read_rows(engine: Engine) -> list[Row]:
    """Return every lease; the table must be there. Reads only."""
    # All columns that it has: one of an earlier version has fewer, and nothing is changed here.
    every = sa.select(sa.text("*"), clock(engine).label("now")).select_from(TABLE)
    with engine.connect() as connection:
        return [_row(row) for row in connection.execute(every)]


def read_row(engine: Engine, study: str) -> Row | None:
    """Return a study's lease, if there is one; the table must be there. Reads only."""
    return next((row for row in read_rows(engine) if row.study == study), None)


def _columns(connection: Connection) -> set[str]:
    inspector = sa.inspect(connection)
    if not inspector.has_table(TABLE.name):
        return set()
    return {column["name"] for column in inspector.get_columns(TABLE.name)}


def _row(row: Any) -> Row:
    age = float(row.now) - row.renewed
    return Row(row.study, row.holder, row.host, row.pid, row.since, row.renewed, age, _lives(row))


def _lives(row: Any) -> bool | None:
    mark = getattr(row, "process", None)
    if mark is not None:
        return lives(row.pid, mark)
    # Of an earlier version: its number alone says something, where there is no such process here.
    gone = row.host == socket.gethostname() and not exists(row.pid)
    return False if gone else None
