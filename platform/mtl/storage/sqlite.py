"""SQLite files, looked at so that they, and what lies beside them, stay as they are: sound,
damaged, or on a disk that is full or cannot be written."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from minbert.errors import InputError

from .urls import check_spelling, sqlite_connection

_EXAMPLE = "postgresql+psycopg://user@host/studies"

# What a disk without room, or without the right to write, answers to whoever opens the log.
_NO_LOG = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
}

_TRIES = 10  # to copy a file that nobody writes


def sqlite_file(variable: str, url: str) -> Path | None:
    """Return the file of an SQLite URL, absolute; None for other databases.

    Raises:
        InputError: what the environment's variable holds is no URL of a database, or is one of a
            database in memory, which no other process sees, or of a file whose name no line holds.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            parsed.get_dialect()
            return None
    except NoSuchModuleError:
        raise InputError(
            f"{variable}: {parsed.drivername}:// is no database; for example {_EXAMPLE}"
        ) from None
    except (ArgumentError, ValueError):
        raise InputError(f"{variable} is not a database URL; for example {_EXAMPLE}") from None
    name = parsed.database or ""
    if name in ("", ":memory:") or name.startswith("file:"):
        raise InputError(
            f"{variable}={url} names no file: processes cannot share a database in memory; write "
            f"sqlite:////folder/name.db, or a server's URL such as {_EXAMPLE}"
        )
    check_spelling(variable, Path(name))
    return Path(name).absolute()


def open_reading(file: Path, timeout: float = 5.0) -> sqlite3.Connection:
    """Open a file that exists so that looking leaves it, and what lies beside it, as they are.

    Where a writer works, or was killed, its log is read by a connection that cannot write, which
    leaves the log there. Without a log such a connection would leave an empty one, of whoever looks
    and closed to the writer, and an ordinary one does not; where this user cannot write the file,
    it is read from a copy. Where nothing can be made beside it, it is read as one that never
    changes; with what a killed writer left in the log, from a copy of both. What is read from a
    copy, or as one that never changes, stays as it is for as long as the connection is open.

    Args:
        timeout: seconds to wait for a writer that keeps readers out.

    Raises:
        sqlite3.Error: it is no database, or cannot be opened.
        InputError: it is no file.
    """
    if not file.is_file():
        raise InputError(f"{file}: is no file, so no database; move it aside")
    log, index = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    folder_open, file_open = os.access(file.parent, os.W_OK), os.access(file, os.W_OK)
    for _ in range(_TRIES if folder_open and not file_open else 0):
        if index.exists():
            return _open(file, "ro", timeout)
        before = written(file)
        copy = _open_copy(file, log, timeout)
        if written(file) == before and not index.exists():
            return copy
        copy.close()  # a writer came meanwhile
    left = log.exists() and log.stat().st_size > 0
    try:
        return _open(file, "ro" if left else "rw", timeout)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _NO_LOG:
            raise
        if left:
            if folder_open:
                raise
            return _open_copy(file, log, timeout)
        return _open(file, "ro&immutable=1", timeout)


def written(file: Path) -> list[tuple[int, int]]:
    """Return what changes when a database is written: times and sizes of the file and its log."""
    log = file.with_name(f"{file.name}-wal")
    there = [spot.stat() for spot in (file, log) if spot.exists()]
    return [(found.st_mtime_ns, found.st_size) for found in there]


def _open_copy(file: Path, log: Path, timeout: float) -> sqlite3.Connection:
    """Open a copy of a file and its log. Nobody writes them: a writer would keep the log's index.

    The copy has no name any more once it is open.
    """
    with tempfile.TemporaryDirectory(prefix="mtl-look-") as folder:
        for part in (file, log):
            if part.exists():
                shutil.copyfile(part, Path(folder) / part.name)
        return _open(Path(folder) / file.name, "rw", timeout)


def _open(file: Path, mode: str, timeout: float) -> sqlite3.Connection:
    # Connections of a pool change threads, one at a time.
    connection = sqlite3.connect(
        sqlite_connection(file, f"mode={mode}"), timeout, uri=True, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA query_only=ON")
        one(connection, "SELECT count(*) FROM sqlite_master")  # opens the log, too
    except BaseException:
        connection.close()
        raise
    return connection


def one(connection: sqlite3.Connection, statement: str) -> object:
    """Return the one value that a statement asks for."""
    return connection.execute(statement).fetchone()[0]


def quick_check(connection: sqlite3.Connection, seconds: float) -> str | None:
    """Return ``ok`` or the first fault; None if the file is too large to be read in time."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > deadline, 100_000)
    try:
        return str(one(connection, "PRAGMA quick_check(1)"))
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def is_damage(error: BaseException) -> bool:
    """Say whether SQLite means that a file is damaged, or was never a database."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def damaged(file: Path, found: str) -> str:
    """Say in one line that a file is damaged, and how to go on."""
    return f"{file} is damaged ({found}); {mend(file)}"


def mend(file: Path) -> str:
    """Say what can be done about a damaged file.

    With its log: SQLite would put that into the file that comes in its place.
    """
    aside = f"{file}.damaged"
    words = [f"mv {shlex.quote(str(file))} {shlex.quote(aside)}"]
    words += [
        f"mv {shlex.quote(f'{file}{ending}')} {shlex.quote(f'{aside}{ending}')}"
        for ending in ("-wal", "-shm")
        if file.with_name(f"{file.name}{ending}").exists()
    ]
    return f"restore a copy, or start anew: {' && '.join(words)}"


def refuse_damaged(file: Path, seconds: float = 5.0) -> None:
    """Look whether a file is sound, before anything is written to it.

    Args:
        seconds: to look; what a larger file holds beyond is not seen.

    Raises:
        InputError: it is damaged, or no database; the line says how to go on.
    """
    if not os.path.lexists(file):
        return
    try:
        with closing(open_reading(file)) as connection:
            found = quick_check(connection, seconds)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        found = str(error)
    if found not in ("ok", None):
        raise InputError(damaged(file, str(found)))


def refuse_unwritable(file: Path) -> None:
    """Look whether this user may write a file, before it is opened for that: SQLite would leave a
    log beside it that is this user's, and locks out those who may.

    Raises:
        InputError: it is there, and cannot be written.
    """
    if file.exists() and not os.access(file, os.W_OK):
        raise InputError(
            f"{file} cannot be written by this user; let its owner permit that (chmod g+w), or "
            "set MTL_HOME to another folder"
        )


@contextmanager
def undisturbed(file: Path | None) -> Iterator[None]:
    """Keep what reads a file in the meantime from merging its log as the last to leave it.

    Args:
        file: None, or no file, is nothing to look after.
    """
    if file is None or not file.with_name(f"{file.name}-wal").exists():
        yield
        return
    uri = sqlite_connection(file, "mode=ro")
    with closing(sqlite3.connect(uri, timeout=60, uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the log, too
        yield
