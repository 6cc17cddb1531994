"""Opening MLflow's store: without global state, without a race at first use, without telemetry."""

from __future__ import annotations

import glob
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..common.masking import clean, masked
from ..common.telemetry import OFF
from ..storage import sqlite
from ..storage.urls import sqlite_url
from .places import Places, settle, translate

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ..storage.home import Home

UI_PORT = 5000
"""Where `mtl ui` serves MLflow unless it is told otherwise."""

_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")  # MLflow's own list

# Read by MLflow when it is imported, so they are set before. What the user has set stays.
QUIET = OFF | {
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A server that is away is for the uploader to wait for, not for a request, which would take
    # minutes with MLflow's own numbers.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}


def sqlite_file(tracking_uri: str) -> Path | None:
    """Return the file behind an SQLite tracking URI, None for any other URI.

    Raises:
        InputError: it names a database in memory, which no other process sees.
    """
    if not tracking_uri.startswith("sqlite"):
        return None
    return sqlite.sqlite_file("MLFLOW_TRACKING_URI", tracking_uri)


def is_database(tracking_uri: str) -> bool:
    """Say whether the store is a database that MLflow's client opens itself, so that no server
    decides where artifacts go."""
    return tracking_uri.partition(":")[0].partition("+")[0] in _DATABASES


def load_mlflow() -> None:
    """Import MLflow, which takes seconds, with its telemetry off."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401


def connect(tracking_uri: str, artifact_root: Path) -> MlflowClient:
    """Return a client of the store at ``tracking_uri``, which is created where it is a new file.

    In this process a file's store says where artifacts lie now, whatever their home was called when
    they were recorded; a home's own store is set right on the disk, too (`mtl.tracking.places`).

    Args:
        artifact_root: the folder of artifacts of the home that is worked in.

    Raises:
        InputError: the store cannot be opened; the line names it and the cause.
    """
    load_mlflow()
    file = sqlite_file(tracking_uri)
    with faults_named(tracking_uri):
        if file is not None:
            sqlite.refuse_unwritable(file)
            _prepare(tracking_uri, file)
            _wait_for_disk_less()
            places = Places.of(file, artifact_root)
            settle(file, places)
            translate(file, places)
        return client_of(tracking_uri)


def settle_home(home: Home) -> None:
    """Have a moved or copied home's store lead into the home, see `mtl.tracking.places.settle`.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    file = sqlite_file(home.mlflow_uri)
    if file is not None and file.is_file():
        settle(file, Places.of(file, home.mlflow_artifacts))


@contextmanager
def faults_named(tracking_uri: str) -> Iterator[None]:
    """Turn what opening a store raises into an input error that names it and the cause."""
    try:
        yield
    except (OSError, sqlite3.Error, _mlflow_error(), _sqlalchemy_error()) as error:
        reason = clean(str(error)).strip().splitlines()[0]
        raise InputError(f"MLflow's store {masked(tracking_uri)} cannot be opened: {reason}") from (
            error
        )


def is_ready(tracking_uri: str) -> bool:
    """Tell, without MLflow's seconds of import, whether an SQLite store has all its tables."""
    file = sqlite_file(tracking_uri)
    return file is not None and _is_wal(file)


def client_of(tracking_uri: str) -> MlflowClient:
    """Return MLflow's client for a store as it is; MLflow is loaded."""
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _prepare(tracking_uri: str, file: Path) -> None:
    """Create the tables once, however many processes start at the same time.

    The tables come by some sixty migrations; a process that looks in between sees half of them.
    Write-ahead logging lets readers (the UI) and writers (the workers) go on beside each other.
    It is a property of the file, and is set last: a file that has it is complete.
    """
    _check_readable(file)
    if _is_wal(file):
        return
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.init.lock"):
        if _is_wal(file):
            return
        if file.exists():
            client_of(tracking_uri)
        else:
            _create(file)
        connection = sqlite3.connect(file, timeout=60)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()


def _create(file: Path) -> None:
    """Make a new store: beside, without waiting for the disk at each of the migrations, and then
    renamed. Nothing can be lost while it is empty, and the migrations wait for the disk for
    seconds."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    opened: list[sqlite3.Connection] = []

    def hurry(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        opened.append(connection)

    for left in file.parent.glob(f"{glob.escape(file.name)}.*.part"):  # by a process that died
        left.unlink()
    # Another name each time: MLflow keeps an engine for every name, and with it the old file.
    part = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.part")
    part.touch()  # by the umask: SQLite's own are for one writer, as its logs are then
    event.listen(Engine, "connect", hurry)
    try:
        client_of(sqlite_url(part))
    finally:
        event.remove(Engine, "connect", hurry)
        for connection in opened:  # MLflow's pool would keep the file open under its first name
            connection.close()
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    _set_log_aside(file)
    os.replace(part, file)


def _set_log_aside(file: Path) -> None:
    """Move away what a file that is gone left beside it: SQLite would take the log for the new
    file's, and put the old one's pages into it."""
    for ending in ("-wal", "-shm"):
        left = file.with_name(f"{file.name}{ending}")
        if left.exists():
            os.replace(left, left.with_name(f"{file.name}.{int(time.time())}.old{ending}"))


def _wait_for_disk_less() -> None:
    """Let SQLite wait for the disk when the log is merged, not at each commit: a training that
    logs every few steps would wait more than it trains. No crash of a process loses anything by
    that; a power cut may lose the last commits, and never damages the file."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    if not event.contains(Engine, "connect", _relax):
        event.listen(Engine, "connect", _relax)


def _relax(connection: object, _record: object) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=NORMAL")


def _check_readable(file: Path) -> None:
    """Raise sqlite3's error for a file that is no database: MLflow tries it for 100 seconds."""
    if not file.exists():
        return
    with closing(sqlite.open_reading(file, 60)) as connection:
        connection.execute("PRAGMA schema_version")


def _is_wal(file: Path) -> bool:
    # Asked of SQLite, not read from the file's header: closing any other descriptor of the file
    # drops the locks that this process' connections hold on it (SQLite, "How to corrupt", 2.2).
    if not file.exists():
        return False
    with closing(sqlite.open_reading(file, 60)) as connection:
        return sqlite.one(connection, "PRAGMA journal_mode") == "wal"


def _mlflow_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException


def _sqlalchemy_error() -> type[Exception]:
    from sqlalchemy.exc import SQLAlchemyError

    return SQLAlchemyError
