"""The home: whether it is there, can be written, and has room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..storage.home import Home
from .checks import Check, bad, note, ok

_LITTLE, _NOTHING = 5e9, 0.5e9  # bytes that are free


def writable(home: Home) -> Iterator[Check]:
    """Say whether the home is there or could be made, and can be written throughout."""
    place = nearest(home.path)
    mend = "set MTL_HOME to a folder that can be written"
    if not place.is_dir():
        yield bad("home", f"{home.path}: {place} is not a folder", mend)
        return
    for spot in (place, *_parts(home)):
        if reason := refusal(spot):
            yield bad("home", f"{spot} cannot be written: {reason}", mend)
            return
    later = "" if home.path.is_dir() else " (not there yet; the first study makes it)"
    yield ok("home", f"{home.path}{later}")


def nearest(path: Path) -> Path:
    """Return the path, or the first of the folders above it that exists."""
    return next((spot for spot in (path, *path.parents) if os.path.lexists(spot)), Path("/"))


def _parts(home: Home) -> list[Path]:
    """What is in the home already and will be written to."""
    folders = (
        *(home.artifacts, home.mlflow_artifacts, home.optuna_artifacts),
        *(home.checkpoints, home.cache, home.spool, home.logs),
    )
    files = (home.path / "optuna.db", home.path / "mlflow.db")
    return [spot for spot in (*folders, *files) if os.path.lexists(spot)]


def refusal(spot: Path) -> str | None:
    """Say why a folder or file cannot be written; None if it can. Nothing is left behind."""
    try:
        if spot.is_dir():
            with tempfile.TemporaryFile(dir=spot):  # where the system can, it never has a name
                return None
        if spot.is_file():
            return None if os.access(spot, os.W_OK) else "permission denied"
    except OSError as error:
        return error.strerror or str(error)
    return "it is no folder"


def disk(home: Home) -> Iterator[Check]:
    """Say how much room there is for what is recorded."""
    usage = shutil.disk_usage(nearest(home.path))
    found = f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.0f} GB"
    mend = "make room, or set MTL_HOME to another disk"
    if usage.free < _NOTHING:
        yield bad("disk", found, mend)
    elif usage.free < _LITTLE:
        yield note("disk", f"{found}; a full-size model with its checkpoint takes 1.3 GB", mend)
    else:
        yield ok("disk", found)
