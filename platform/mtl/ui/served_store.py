"""MLflow's store as its server gets it: the home's own, or a copy of what can only be read."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minbert.errors import InputError

from ..storage.urls import sqlite_url
from ..tracking.looking import StoreCopy, is_writable
from ..tracking.places import Places, settle
from ..tracking.store import connect, faults_named, is_ready, sqlite_file

if TYPE_CHECKING:
    from ..storage.home import Home

_log = logging.getLogger(__name__)
_PACE = 5.0  # seconds between looks at a store that others may write


class ServedStore(NamedTuple):
    """What a server is told.

    Attributes:
        uri: of the store.
        copied: it is a copy; what is changed in it is lost.
        own: it is a file of the home, or a copy of one, see `mtl.tracking.places.Places`.
    """

    uri: str
    copied: bool
    own: bool


def is_copied(home: Home) -> bool:
    """Say whether MLflow's page shows a copy of the store: its file is there, but only to read."""
    file = sqlite_file(home.mlflow_uri)
    return file is not None and file.is_file() and not is_writable(file)


@contextmanager
def served_store(home: Home) -> Iterator[ServedStore]:
    """Make a home's store ready for a server, for as long as this lasts.

    A new home gets its tables; one that was moved or copied has the right addresses after this. A
    copy follows what others record in the original.

    Raises:
        InputError: the store cannot be opened.
    """
    uri, file = home.mlflow_uri, sqlite_file(home.mlflow_uri)
    places = None if file is None else Places.of(file, home.mlflow_artifacts)
    own = places is not None and places.own
    if file is not None and is_copied(home):
        with _copied(uri, file) as copy:
            yield ServedStore(sqlite_url(copy.file), True, own)
        return
    if not is_ready(uri):
        connect(uri, home.mlflow_artifacts)  # makes the tables where nothing was recorded yet
    elif file is not None and places is not None:
        with faults_named(uri):
            settle(file, places)
    yield ServedStore(uri, False, own)


@contextmanager
def _copied(uri: str, file: Path) -> Iterator[StoreCopy]:
    with faults_named(uri):
        copy = StoreCopy(file)
    ended = threading.Event()
    thread = threading.Thread(target=_follow, args=(file, copy, ended), name="copy", daemon=True)
    thread.start()
    try:
        yield copy
    finally:
        ended.set()
        thread.join()
        copy.remove()


def _follow(file: Path, copy: StoreCopy, ended: threading.Event) -> None:
    seen = _written(file)
    while not ended.wait(_PACE):
        if (now := _written(file)) != seen:
            seen = now
            try:
                copy.refresh()
            except (sqlite3.Error, OSError, InputError) as error:
                _log.warning("the page does not show what was recorded just now: %s", error)


def _written(file: Path) -> list[tuple[int, int]]:
    """Return what changes when a database is written: sizes and times of the file and its log."""
    there = [spot for spot in (file, file.with_name(f"{file.name}-wal")) if spot.is_file()]
    return [(spot.stat().st_mtime_ns, spot.stat().st_size) for spot in there]
