"""Who dispatches which study, where several hosts share a database server."""

from __future__ import annotations

from collections.abc import Iterator

from ..storage.home import Home
from ..storage.optuna import read_engine
from ..storage.sqlite import sqlite_file
from .checks import Check, ok


def leases(home: Home) -> Iterator[Check]:
    """Name the holders of leases; nothing where the database is a file of this host.

    Raises:
        InputError: the database cannot be opened.
    """
    from ..storage.lease import dispatchers, has_leases

    if sqlite_file("MTL_STORAGE", home.storage_url) is not None:
        return
    engine = read_engine(home)
    try:
        if not has_leases(engine):
            yield ok("leases", "no table yet; the first study makes it")
            return
        held = dispatchers(engine)
    finally:
        engine.dispose()
    words = "; ".join(f"{study}: {holder}" for study, holder in sorted(held.items()))
    yield ok("leases", words or "none is held")
