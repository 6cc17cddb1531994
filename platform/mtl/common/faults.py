"""What the machine refuses: a full disk, a file system that is read-only, a damaged database, a
server that is away.

No trial is at fault then, and every further one would end alike: a study stops, its trials stay as
they are, and the same command goes on once the machine is put right.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_AGAIN = "run the same command again"
_MEGABYTE = 1 << 20
_READERS = ("optuna.storages.", "mlflow.store.", "sqlalchemy.")
# What a lost connection is raised as; PostgreSQL's codes for what passes by itself: no connection
# (08), a server that goes down or comes up (57P), one with no connection left (53300).
_SERVERS = ("psycopg", "psycopg2", "MySQLdb", "pymysql")
_UNREACHABLE = ("OperationalError", "InterfaceError")
_PASSES = ("08", "57P", "53300")


class _Fault(NamedTuple):
    found: str
    mend: str


_FULL = _Fault("no space is left on its disk", "make room")
_READ_ONLY = _Fault("cannot be written: the file system is read-only", "mount it writable")
_DISK = _Fault("the disk fails (input/output error)", "look at the disk and at the system's log")
_OPEN = _Fault("too many files are open", "raise the limit (ulimit -n) or lower --jobs")
_DAMAGED = _Fault(
    "a database in it is damaged", "let `mtl doctor` say which, restore a copy or move it aside"
)
_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _Fault("your share of its disk is used up (quota)", "make room"),
    errno.EROFS: _READ_ONLY,
    errno.EACCES: _Fault("permission denied", "let this user read and write it"),
    errno.EIO: _DISK,
    errno.EMFILE: _OPEN,
    errno.ENFILE: _OPEN,
    errno.EFBIG: _Fault("is not permitted to grow (ulimit -f, or the file system)", "permit it"),
}
_BY_WORDS = {  # SQLite's
    "database or disk is full": _FULL,
    "attempt to write a readonly database": _Fault(
        "a database in it cannot be written", "let this user write it, or mount it writable"
    ),
    "disk image is malformed": _DAMAGED,
    "file is not a database": _DAMAGED,
    "disk i/o error": _DISK,
    "unable to open database file": _Fault(
        "a database in it cannot be opened", "see that the folder can be written and has room"
    ),
    "database is locked": _Fault(
        "a database in it was locked by another process for too long", "wait for that or end it"
    ),
}
# Rust's way to say it (safetensors, tokenizers); numpy's, which has no number; shutil's, of many.
_RUST = re.compile(r"\(os error (\d+)\)")
_NUMPY = re.compile(r"^\d+ requested and \d+ written$")
_MANY = re.compile(r"\[Errno (\d+)\]")


def explain(error: BaseException, home: Path, again: str = _AGAIN) -> str | None:
    """Say in one line what the machine refused, where, and what to do; None if it was no such
    thing.

    Args:
        error: with what it was raised from: libraries wrap what the system says.
        home: named where the error does not name a file.
        again: what goes on then.
    """
    for cause in causes(error):
        fault = _fault(cause)
        if fault is _DISK and _free(home) < _MEGABYTE:
            fault = _FULL  # SQLite's index of the log does not say why it cannot grow
        if fault is not None:
            return _sentence(_place(cause, fault, home), fault, again)
    if reason := away(error):
        mended = f"see that it runs, then {again}: what was recorded is kept"
        return f"a database server cannot be reached: {reason}; {mended}"
    return None


def worded(text: str, place: Path | str, again: str = _AGAIN) -> str | None:
    """Say the same of what an SQLite file refused where only its words have come: by a server.

    Args:
        place: what refused it. again: what goes on then.
    """
    fault = _worded(text)
    return None if fault is None else _sentence(place, fault, again)


def _sentence(place: Path | str, fault: _Fault, again: str) -> str:
    return f"{place}: {fault.found}; {fault.mend}, then {again}: what was recorded is kept"


def _worded(text: str) -> _Fault | None:
    words = text.lower()
    return next((fault for known, fault in _BY_WORDS.items() if known in words), None)


def away(error: BaseException) -> str | None:
    """Say in a few words why a database server cannot be reached, where that is the fault; None if
    it is another, or no server's.

    What failed may have been done all the same, if it was the answer that was lost.
    """
    for cause in causes(error):
        if _is_lost(cause):
            lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
            return lines[0].strip()[:200] if lines else type(cause).__name__
    return None


def _is_lost(error: BaseException) -> bool:
    if getattr(error, "connection_invalidated", False):  # SQLAlchemy's judgement
        return True
    kinds = {kind.__name__ for kind in type(error).__mro__}
    of_a_server = type(error).__module__.partition(".")[0] in _SERVERS
    if not of_a_server or kinds.isdisjoint(_UNREACHABLE):
        return False
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return code is None or code.startswith(_PASSES)


def unreadable(error: BaseException, home: Path) -> str | None:
    """Say that a database holds what nobody wrote, where an error shows it; None if none does.

    SQLite keeps no digest of what it holds: a byte that has changed in a text, a name or a date is
    found by who reads it, and looks like a fault of the program.
    """
    for cause in causes(error):
        told = isinstance(cause, sqlite3.Error)
        plain = isinstance(cause, ValueError) or type(cause) is LookupError
        if told or (plain and _while_reading(cause)):
            found = " ".join(f"{type(cause).__name__}: {cause}".split())[:200]
            return (
                f"{home}: a database in it holds what cannot be read ({found}); it is damaged, or "
                "of another version: let `mtl doctor` look at it, restore a copy or move it aside"
            )
    return None


def _while_reading(error: BaseException) -> bool:
    """Whether an error was raised in the code that reads Optuna's or MLflow's database."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(f.f_globals.get("__name__")).startswith(_READERS) for f in frames)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it, as a traceback shows them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _fault(error: BaseException) -> _Fault | None:
    text = str(error)
    if isinstance(error, sqlite3.Error):
        return _worded(text)
    if isinstance(error, OSError) and error.errno is not None:
        unnamed = error.errno == errno.EACCES and error.filename is None  # a port, say
        return None if unnamed else _BY_NUMBER.get(error.errno)
    if isinstance(error, OSError) and _NUMPY.match(text):
        return _FULL
    pattern = _MANY if isinstance(error, shutil.Error) else _RUST
    found = pattern.search(text)
    return _BY_NUMBER.get(int(found[1])) if found else None


def _place(error: BaseException, fault: _Fault, home: Path) -> str:
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(named, str | bytes | os.PathLike):
        return os.fsdecode(named)
    if fault is _FULL and _free(home) > 16 * _MEGABYTE:
        return "a file that was written"  # not in the home: standard output, a temporary folder
    return str(home)


def _free(home: Path) -> float:
    """Bytes that are free on the home's disk."""
    place = next((spot for spot in (home, *home.parents) if spot.exists()), Path("/"))
    return shutil.disk_usage(place).free
