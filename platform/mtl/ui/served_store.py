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

from ..storage.sqlite import written
from ..storage.urls import sqlite_url
from ..tracking.looking import StoreCopy, is_writable
from ..tracking.places import Places
from ..tracking.store import connect, faults_named, is_ready, settle_home, sqlite_file

if TYPE_CHECKING:
    from ..storage.home import Home

_log = logging.getLogger(__name__)
_PACE = 5.0  # seconds between looks at a store that others may write


class ServedStore(NamedTuple):
    """What a server is told.

    Attributes:
        uri: of the store.
        own: it is a file of the home, or a copy of one, see `mtl.tracking.places.Places`.
    """

    uri: str
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
    own = file is not None and Places.of(file, home.mlflow_artifacts).own
    if file is not None and is_copied(home):
        with _copied(uri, file) as copy:
            yield ServedStore(sqlite_url(copy.file), own)
        return
    if not is_ready(uri):
        connect(uri, home.mlflow_artifacts)  # makes the tables where nothing was recorded yet
    else:
        with faults_named(uri):
            settle_home(home)
    yield ServedStore(uri, own)


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
    seen = written(file)
    while not ended.wait(_PACE):
        if (now := written(file)) != seen:
            seen = now
            try:
                copy.refresh()
            except (sqlite3.Error, OSError, InputError) as error:
                _log.warning("the page does not show what was recorded just now: %s", error)
