"""Looking into SQLite files so that they, and what lies beside them, stay as they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote


@contextmanager
def undisturbed(file: Path | None) -> Iterator[None]:
    """Keep what reads a file in the meantime from merging its log as the last to leave it.

    Args:
        file: None, or no file, is nothing to look after.
    """
    if file is None or not file.with_name(f"{file.name}-wal").exists():
        yield
        return
    uri = f"file:{quote(str(file))}?mode=ro"
    with closing(sqlite3.connect(uri, timeout=60, uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the log, too
        yield
