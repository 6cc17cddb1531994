"""A database server instead of a file: how it is connected to, and what only a server needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..common.faults import causes

if TYPE_CHECKING:
    from sqlalchemy import Connection

PATIENCE = 5.0
"""Seconds that a server has to accept a connection."""

_MAKING = 0x6D746C  # names the lock under which tables are made
_POSTGRES = "pip install -c constraints.txt '.[postgres]' in the checkout"
_PACKAGES = {  # what drivers are imported as, and what they are installed as
    "psycopg": _POSTGRES,
    "psycopg2": f"{_POSTGRES}, and let the URL begin with postgresql+psycopg://",
    "MySQLdb": "pip install mysqlclient",
}
_LIBPQ = ("psycopg", "psycopg2")
_ASKED = {
    # A database without an encoding (SQL_ASCII, where the server's locale is C) gives bytes else.
    "client_encoding": "utf8",
    # A server's machine that is gone without a word is noticed within some ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds
    "application_name": "mtl",
}


def server_options(url: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """Return SQLAlchemy's options for an engine over a server.

    A connection is asked whether it lives before it is used: one that a restarted server has
    closed is replaced. What the URL itself says stays.

    Args:
        timeout: seconds that the server has to accept a connection.
    """
    from sqlalchemy import make_url

    parsed = make_url(url)
    # The drivers of PostgreSQL and MySQL agree on the name; they want whole seconds.
    args: dict[str, Any] = {"connect_timeout": max(2, int(timeout))}
    if parsed.get_driver_name() in _LIBPQ:
        args |= _ASKED
    left = {name: value for name, value in args.items() if name not in parsed.query}
    return {"pool_pre_ping": True, "connect_args": left}


def read_only(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return an engine's options with which a PostgreSQL server refuses every write."""
    from sqlalchemy import make_url

    if make_url(url).get_backend_name() != "postgresql":
        return options
    return {**options, "execution_options": {"postgresql_readonly": True}}


def alone(connection: Connection) -> None:
    """Keep other processes from making tables until this transaction ends.

    PostgreSQL's IF NOT EXISTS looks and makes in two steps: two that come at once collide.
    """
    from sqlalchemy import func, select, text

    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(select(func.pg_advisory_xact_lock(_MAKING)))


class MissingDriver(NamedTuple):
    """A driver that is not installed, and what to type."""

    name: str
    mend: str


def missing_driver(error: BaseException) -> MissingDriver | None:
    """Say which database driver an error misses; None if it is no such error."""
    for cause in causes(error):
        if isinstance(cause, ImportError):
            name = (cause.name or "").partition(".")[0]
            if "no pq wrapper available" in str(cause):  # psycopg is there, its C library is not
                name = "psycopg"
            if name in _PACKAGES:
                return MissingDriver(name, _PACKAGES[name])
    return None
