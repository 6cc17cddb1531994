"""Homes that were moved or copied: what MLflow's store in a file still says of the former place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ..common.text import count
from ..storage.home import Home
from ..storage.sqlite import open_reading
from ..tracking.places import Former, Places, former
from ..tracking.store import sqlite_file
from .checks import Check, note

_NEXT = "nothing; the next study, promotion or `mtl ui` writes down where they lie now"


def moved(home: Home) -> Iterator[Check]:
    """Say from where a home was moved or copied, as long as its store tells.

    Raises:
        InputError: the store is no file.
        sqlite3.Error: it cannot be read.
    """
    file = sqlite_file(home.mlflow_uri)
    if file is None or not file.is_file():
        return
    places = Places.of(file, home.mlflow_artifacts)
    with closing(open_reading(file)) as connection:
        for found in former(connection, places):
            yield _check(found, places, file)


def _check(found: Former, places: Places, file: Path) -> Check:
    number = count(found.locations, "place")
    if found.same:
        said = f"MLflow's store calls this folder {found.home}, another name of it"
        return note("moved", said, "nothing")
    if not places.own:
        said = f"{file}: {number} of artifacts lie in {found.home}"
        return note("moved", said, f"what is recorded there stays there; see that {found.home} is")
    if found.there:
        said = f"a copy of {found.home}, which is still there: each goes on by itself"
        return note("copied", f"{said} ({number} in MLflow's store lie there)", _NEXT)
    said = f"moved from {found.home}; {number} in MLflow's store lie there"
    return note("moved", f"{said}, and are found here all the same", _NEXT)
