"""MLflow's store for whoever only looks: nothing is written to it, and it need not be writable."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import weakref
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..storage.sqlite import open_reading
from ..storage.urls import sqlite_url
from .places import Places, translate
from .store import client_of, faults_named, is_ready, load_mlflow, sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from ..storage.home import Home


def look(home: Home) -> MlflowClient:
    """Return a client of a home's store, for reading.

    It says where artifacts lie now, as `mtl.tracking.store.connect` does. A file that cannot be
    written is read from a copy, which lasts as long as the client: MLflow writes to what it opens.

    Raises:
        InputError: the store is not there or cannot be opened; the line names it and the cause.
    """
    load_mlflow()
    uri, file = home.mlflow_uri, sqlite_file(home.mlflow_uri)
    with faults_named(uri):
        if file is None:
            return client_of(uri)
        if not file.is_file():
            raise InputError(f"there is no MLflow store {file}")
        places = Places.of(file, home.mlflow_artifacts)
        if is_writable(file) and is_ready(uri):
            translate(file, places)
            return client_of(uri)
        return _client_of_copy(file, places)


def is_writable(file: Path) -> bool:
    """Say whether a database can be written: the file, and its folder, which takes its log."""
    return os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)


class StoreCopy:
    """A copy of a database that cannot be written, in a folder of its own.

    Args:
        file: the database.

    Attributes:
        file: the copy.

    Raises:
        sqlite3.Error, InputError: it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._original = file
        self._folder = tempfile.mkdtemp(prefix="mtl-store-")
        self.file = Path(self._folder) / file.name
        try:
            self.refresh()
        except BaseException:
            self.remove()
            raise

    def refresh(self) -> None:
        """Bring the copy to what the database holds now, for those who have it open, too."""
        reading, writing = open_reading(self._original), sqlite3.connect(self.file, timeout=60)
        with closing(reading) as source, closing(writing) as copy:
            source.backup(copy)

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _client_of_copy(file: Path, places: Places) -> MlflowClient:
    copy = StoreCopy(file)
    translate(copy.file, places)
    client = client_of(sqlite_url(copy.file))
    weakref.finalize(client, copy.remove)
    return client
