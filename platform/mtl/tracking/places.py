"""Where a home's artifacts lie now, whatever MLflow's store says.

A store in a file writes down a folder with every experiment, run and model version, as it was
called then. A home is moved, copied, mounted under another name: what lies in it is found where the
home is, and nothing is written where it was. So each process of ours translates what it reads
(`translate`), and who records in a home sets right what stands in its store (`settle`), for MLflow
used without us.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..storage.urls import file_path, file_url

_log = logging.getLogger(__name__)

# What MLflow lays out below a home: the folder of an experiment, and in it of runs, models, traces.
_LAID_OUT = re.compile(
    r"^(?P<before>.*?)/artifacts/mlflow/(?P<rest>[^/]+(?:/(?:[0-9a-f]{32}|models|traces)(?:/.*)?)?)$"
)
_COLUMNS = (  # of MLflow's tables, with its classes for them
    ("experiments", "artifact_location", "SqlExperiment"),
    ("runs", "artifact_uri", "SqlRun"),
    ("logged_models", "artifact_location", "SqlLoggedModel"),
    ("model_versions", "source", "SqlModelVersion"),
    ("model_versions", "storage_location", "SqlModelVersion"),
)


@dataclass(frozen=True)
class Places:
    """The folder of a home's artifacts, and how addresses in a store lead there.

    Attributes:
        root: the home's ``artifacts/mlflow``, absolute.
        own: the store is a file of the home, so what it calls a home's is this one's, whatever it
            was called. Another store may serve several: of them only a home that is no longer where
            the store says, and whose files are here, is taken for this one.
    """

    root: Path
    own: bool

    @classmethod
    def of(cls, file: Path, root: Path) -> Places:
        """Return the places of a store in a file, for the home that ``root`` belongs to."""
        home = root.absolute().parents[1]
        return cls(root.absolute(), home in file.parents)

    def here(self, location: str | None) -> str | None:
        """Return where something lies now; what is no part of a home stays as it is."""
        found = self._foreign(location)
        if found is None:
            return location
        home, rest = found
        ours = self.own or not _artifacts(home).exists() and (self.root / rest).exists()
        return file_url(self.root / rest) if ours else location

    def before(self, location: str | None) -> Path | None:
        """Return the home in which a location says that something lies, if it is another folder."""
        found = self._foreign(location)
        return None if found is None else found[0]

    def _foreign(self, location: str | None) -> tuple[Path, str] | None:
        """Split a location into a home and what lies in its artifacts; None if it is this home, or
        no such place."""
        found = _parsed(location or "")
        return None if found is None or _artifacts(found[0]) == self.root else found


def _parsed(location: str) -> tuple[Path, str] | None:
    """Split a location into a home and what lies in its artifacts; None if it is no such place."""
    path = file_path(location)
    found = None if path is None else _LAID_OUT.match(str(path))
    return None if found is None else (Path(found["before"] or "/"), found["rest"])


# ---- what a process reads -----------------------------------------------------------------------

_translated: dict[Path, Places] = {}  # by the store's file


def translate(file: Path, places: Places) -> None:
    """Have MLflow's store in a file say, in this process, where artifacts lie now.

    The rows stay as they are. Needs MLflow loaded.
    """
    from mlflow.store.model_registry.dbmodels import models as registered
    from mlflow.store.tracking.dbmodels import models as tracked
    from sqlalchemy import event

    _translated[file] = places
    for _, column, name in _COLUMNS:
        entity = getattr(tracked, name, None) or getattr(registered, name)
        for moment in ("load", "refresh"):
            if not event.contains(entity, moment, _HEARERS[column]):
                event.listen(entity, moment, _HEARERS[column])


def _hear(column: str, row: Any, context: Any, *_attributes: Any) -> None:
    from sqlalchemy.orm.attributes import set_committed_value

    database = context.session.get_bind().url.database
    places = _translated.get(Path(database).absolute()) if database else None
    told = row.__dict__.get(column)
    if places is not None and (now := places.here(told)) != told:
        set_committed_value(row, column, now)  # no change of the row: it is not written back


_HEARERS = {column: partial(_hear, column) for _, column, _ in _COLUMNS}


# ---- what a store says --------------------------------------------------------------------------


@dataclass(frozen=True)
class Former:
    """Another folder that a store takes for a home.

    Attributes:
        home: the folder.
        there: it is there, with artifacts.
        same: it is the home itself, under another name, as links and mounts give it.
        locations: how many addresses lead there.
    """

    home: Path
    there: bool
    same: bool
    locations: int


def former(connection: sqlite3.Connection, places: Places) -> list[Former]:
    """Return the other folders to which addresses of a store lead, the most named first."""
    counts = Counter(home for *_, home in _foreign(connection, places))
    return [
        Former(home, _artifacts(home).exists(), _is_same(_artifacts(home), places.root), number)
        for home, number in counts.most_common()
    ]


def settle(file: Path, places: Places) -> None:
    """Write into a home's own store where its artifacts lie now, and say so where that is news.

    All of it or nothing. Where the former folder is the same one under another name, its addresses
    stay: both names lead here.

    Raises:
        sqlite3.Error: it cannot be written.
    """
    if not places.own:
        return
    with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
        if not _to_change(connection, places):
            return
        connection.execute("BEGIN IMMEDIATE")
        changed = _to_change(connection, places)  # another process may have been quicker
        for address in changed:
            connection.execute(
                f"UPDATE {address.table} SET {address.column} = ? WHERE rowid = ?",
                (places.here(address.told), address.row),
            )
        connection.execute("COMMIT")
    for home in sorted({address.home for address in changed}):
        _log.warning("this home was %s: MLflow's store says now where its artifacts lie", home)


class _Address(NamedTuple):
    table: str
    column: str
    row: int
    told: str
    home: Path  # into which it leads


def _to_change(connection: sqlite3.Connection, places: Places) -> list[_Address]:
    found = list(_foreign(connection, places))
    same = {home for home in {a.home for a in found} if _is_same(_artifacts(home), places.root)}
    return [address for address in found if address.home not in same]


def _foreign(connection: sqlite3.Connection, places: Places) -> Iterator[_Address]:
    """Yield what leads into the artifacts of another folder than the home."""
    prefix = file_url(places.root) + "/"
    for table, column, _ in _COLUMNS:
        if not _has(connection, table):
            continue
        rows = connection.execute(
            f"SELECT rowid, {column} FROM {table} WHERE {column} LIKE '%/artifacts/mlflow/%' "
            f"AND substr({column}, 1, ?) <> ?",
            (len(prefix), prefix),
        )
        for row, told in rows.fetchall():
            if (home := places.before(told)) is not None:
                yield _Address(table, column, row, told, home)


def _has(connection: sqlite3.Connection, table: str) -> bool:
    asked = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(asked, (table,)).fetchone()[0] > 0


def _artifacts(home: Path) -> Path:
    return home / "artifacts/mlflow"


def _is_same(there: Path, here: Path) -> bool:
    try:
        return there.samefile(here)
    except OSError:
        return False
