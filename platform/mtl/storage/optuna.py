"""Optuna's storage over the home's file or a server: for writing, and for reading only."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..common.faults import away, causes, explain
from ..common.masking import clean, masked
from .home import Home
from .server import missing_driver, read_only, server_options
from .sqlite import damaged, is_damage, open_reading, refuse_damaged, refuse_unwritable, sqlite_file
from .urls import optuna_template

if TYPE_CHECKING:
    import optuna
    from sqlalchemy import Engine

BUSY_TIMEOUT = 60.0
"""Seconds that a writer waits for another writer of the same SQLite file."""


def open_storage(home: Home) -> optuna.storages.BaseStorage:
    """Open Optuna's storage for writing; its tables are made at the first use.

    SQLite runs with a write-ahead log (readers never wait) and a busy timeout. Optuna keeps its
    own log off the screen.

    Raises:
        InputError: the database cannot be opened, or is damaged: nothing is written to it then.
    """
    from optuna.storages import get_storage

    _quiet_optuna()
    try:
        file = _sqlite_file(home.storage_url)
        if file is not None:
            return get_storage(_sqlite_storage(home, file))
        from .server_storage import open_server_storage

        return get_storage(open_server_storage(home.storage_url))
    except Exception as error:
        raise _cannot_open(home, error) from error


def _sqlite_storage(home: Home, file: Path) -> optuna.storages.RDBStorage:
    from filelock import FileLock
    from optuna.storages import RDBStorage

    _make_folder(file.parent)
    refuse_unwritable(file)
    refuse_damaged(file)
    # Two processes that make the tables of a new file at once collide in Optuna's schema.
    with FileLock(home.path / "optuna.db.init.lock", timeout=BUSY_TIMEOUT):
        if not file.exists():  # by the umask: SQLite's own are for one writer, as its logs are then
            file.touch()
        storage = RDBStorage(optuna_template(home.storage_url), _engine_options(home.storage_url))
        _configure_sqlite(storage.engine, ["journal_mode=WAL", "synchronous=NORMAL"])
    return storage


def _make_folder(folder: Path) -> None:
    """Make the folder of a database elsewhere, as it is made for MLflow's."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"MTL_STORAGE: the folder {folder} cannot be made: {error.strerror}; name a folder "
            "that can be written"
        ) from None


def open_engine(home: Home) -> Engine:
    """Open the same database for tables of our own.

    Raises:
        InputError: the database cannot be opened.
    """
    file = _sqlite_file(home.storage_url)
    if file is not None:
        refuse_unwritable(file)
    return _engine(home, _engine_options)


def _engine(home: Home, options: Callable[[str], dict[str, Any]]) -> Engine:
    import sqlalchemy

    try:
        return sqlalchemy.create_engine(home.storage_url, **options(home.storage_url))
    except Exception as error:
        raise _cannot_open(home, error) from error


def read_storage(home: Home) -> optuna.storages.BaseStorage | None:
    """Open Optuna's storage for reading only; None where nothing was ever recorded.

    Works while a study runs; nothing is created, nothing is migrated. Works on a disk that is full
    or cannot be written, too.

    Raises:
        InputError: the database cannot be opened.
    """
    file = _sqlite_file(home.storage_url)
    if file is not None and not os.path.lexists(file):
        return None
    from optuna.storages import RDBStorage, get_storage

    _quiet_optuna()
    options = reading_options(home.storage_url)
    try:
        if not _has_tables(home.storage_url, options):
            return None
        storage = RDBStorage(
            optuna_template(home.storage_url),
            options,
            skip_compatibility_check=True,
            skip_table_creation=True,
        )
        return get_storage(storage)
    except Exception as error:
        raise _cannot_open(home, error) from error


def read_engine(home: Home) -> Engine:
    """Open the same database for reading tables of our own.

    Raises:
        InputError: the database cannot be opened.
    """
    return _engine(home, reading_options)


def reading_options(url: str) -> dict[str, Any]:
    """Return SQLAlchemy's options for an engine that reads a database and leaves it as it is."""
    file = _sqlite_file(url)
    if file is not None:
        return {"creator": lambda: open_reading(file, BUSY_TIMEOUT)}
    return read_only(url, server_options(url))


def _has_tables(url: str, options: dict[str, Any]) -> bool:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url, **options)
    try:
        return sqlalchemy.inspect(engine).has_table("version_info")  # Optuna makes it last
    finally:
        engine.dispose()


def _cannot_open(home: Home, error: Exception) -> Exception:
    """Turn what a database driver raises into an input error; leave what is no such fault."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, SQLAlchemyError | OptunaError | ImportError | RuntimeError | OSError):
        return error
    file = _sqlite_file(home.storage_url)
    first = next((e for e in causes(error) if isinstance(e, sqlite3.Error)), error)
    if file is not None and is_damage(first):
        return InputError(damaged(file, str(first)))
    shown = masked(home.storage_url)
    if driver := missing_driver(error):
        return InputError(f"storage {shown} needs the driver {driver.name}: {driver.mend}")
    if reason := away(error):
        return InputError(f"storage {shown} cannot be reached: {clean(reason)}")
    if fault := explain(error, file.parent if file else home.path):
        return InputError(fault)
    reason = " ".join(clean(str(getattr(first, "orig", None) or first)).split())
    return InputError(f"storage {shown} cannot be opened: {reason[:300]}")


def _engine_options(url: str) -> dict[str, Any]:
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_TIMEOUT}}
    return server_options(url)


def _configure_sqlite(engine: Engine, pragmas: list[str]) -> None:
    """Run pragmas on every connection of an engine, those that are open already included."""
    from sqlalchemy import event

    def apply(connection: Any, _record: Any = None) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", apply)
    engine.dispose()
    with engine.connect():
        pass


def _sqlite_file(url: str) -> Path | None:
    return sqlite_file("MTL_STORAGE", url)


def _quiet_optuna() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
