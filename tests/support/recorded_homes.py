"""Homes as earlier versions recorded them, packed so that they can be read anywhere.

MLflow, Optuna and mtl keep absolute paths, and SQLite files are large and differ by the version
that wrote them. So a database is packed as the SQL that makes it, and in every text a placeholder
stands for the folder in which it was recorded.
"""

from __future__ import annotations

import io
import re
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

PLACE = "@PLACE@"
"""Stands for the folder that held the home."""

_PLAIN = re.compile(r"[A-Za-z0-9/_.-]+")  # looks the same in a path, a URI, SQL and JSON
_JOURNAL, _SENT = "journal.jsonl", "sent"


def pack(folder: Path, archive: Path, wanted: Callable[[str], bool]) -> None:
    """Pack a folder, with a home at rest in it, into an ``.tar.xz``.

    The same folder gives the same bytes: neither owners nor times are kept.

    Args:
        wanted: says of a file, by its path in the folder, whether it is packed.

    Raises:
        ValueError: the folder's name is not written in the same way everywhere, or a binary file
            holds it.
    """
    if not _PLAIN.fullmatch(str(folder)):
        raise ValueError(f"{folder}: a path of letters, digits and /_.- is needed")
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(file.relative_to(folder))
            if wanted(name) and not name.endswith(("-wal", "-shm")):
                name, data = _packed(file, name, folder)
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def restore(archive: Path, folder: Path, recorded_in: Path | None = None) -> None:
    """Unpack what `pack` packed into a folder, which is made, as if it had been recorded there.

    Args:
        recorded_in: the folder in which it was recorded, from where it was moved since.
    """
    place = recorded_in or folder
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    files = [path for path in folder.rglob("*") if path.is_file()]
    for sent in (file for file in files if file.name == _SENT):  # while the journals are as packed
        sent.write_bytes(_sent(sent.with_name(_JOURNAL), lambda data: _placed(data, place)))
    for file in files:
        data = file.read_bytes()
        if _is_text(data):
            file.write_bytes(_placed(data, place))
        if file.name.endswith(".db.sql"):
            _make_database(file)


def _packed(file: Path, name: str, folder: Path) -> tuple[str, bytes]:
    """Return the name and the bytes of a file in the archive."""
    if file.suffix == ".db":
        return f"{name}.sql", _taken(_dump(file), folder)
    data = file.read_bytes()
    if file.name == _SENT:
        return name, _sent(file.with_name(_JOURNAL), lambda data: _taken(data, folder))
    if _is_text(data):
        return name, _taken(data, folder)
    if str(folder).encode() in data:
        raise ValueError(f"{file} is no text, and holds the path {folder}")
    return name, data


def _sent(journal: Path, change: Callable[[bytes], bytes]) -> bytes:
    """Return what ``sent`` says, a place in the journal, once the journal is changed."""
    sent = int(journal.with_name(_SENT).read_text())
    return b"%020d" % len(change(journal.read_bytes()[:sent]))


def _taken(data: bytes, folder: Path) -> bytes:
    return data.replace(str(folder).encode(), PLACE.encode())


def _placed(data: bytes, folder: Path) -> bytes:
    uris = data.replace(f"file://{PLACE}".encode(), folder.as_uri().encode())
    return uris.replace(PLACE.encode(), str(folder).encode())


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


def _dump(file: Path) -> bytes:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return ("\n".join(connection.iterdump()) + "\n").encode()


def _make_database(dump: Path) -> None:
    """Make a database beside its SQL, which goes; with a write-ahead log, by which mtl tells
    that it is complete."""
    with closing(sqlite3.connect(dump.with_suffix(""))) as connection:
        connection.executescript(dump.read_text("utf-8"))
        connection.execute("PRAGMA journal_mode=WAL")
    dump.unlink()
