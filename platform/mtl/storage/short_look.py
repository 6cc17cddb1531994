"""A look into a database that leaves it as it is, and no connection behind: no wait is long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .server import read_only, server_options
from .sqlite import open_reading, sqlite_file
from .urls import optuna_template

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import Engine

_PATIENCE = 3.0  # seconds that a server has: whoever only looks waits less than who works


@contextmanager
def short_engine(url: str) -> Iterator[Engine]:
    """Open a database for as long as this lasts."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, **_options(url))
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def optuna_storage(url: str) -> Iterator[RDBStorage | None]:
    """Open Optuna's storage in a database that exists, for reading; None where it has no tables.

    Unlike `mtl.storage.optuna.read_storage`, no connection outlives it, and none waits for long.
    """
    import sqlalchemy
    from optuna.storages import RDBStorage

    with short_engine(url) as engine:
        there = sqlalchemy.inspect(engine).has_table("alembic_version")
    if not there:
        yield None
        return
    storage = RDBStorage(
        optuna_template(url),
        _options(url),
        skip_compatibility_check=True,
        skip_table_creation=True,
    )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _options(url: str) -> dict[str, Any]:
    """Return options for an engine that waits briefly, and leaves an SQLite file as it is."""
    file = sqlite_file("the address", url)
    if file is not None:
        return {"creator": lambda: open_reading(file)}
    return read_only(url, server_options(url, _PATIENCE))
