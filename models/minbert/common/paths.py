"""Paths as people give them: any text may stand where a folder is named."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4


def given_path(text: str) -> Path:
    """Return the path that a text means; ``~`` is a home folder where there is such a user."""
    return Path(os.path.expanduser(text))  # Path.expanduser raises for an unknown user


def is_folder(path: str | Path) -> bool:
    """Say whether there is a folder. Names too long and folders out of reach are none."""
    return os.path.isdir(path)  # Path.is_dir raises for both


def new_folder(parent: Path, prefix: str, suffix: str = "") -> Path:
    """Make an empty folder with a name that no other has. Unlike tempfile's it is one as folders
    are made there, by umask and group: others shall go on with what is renamed into its place."""
    folder = parent / f"{prefix}{uuid4().hex[:12]}{suffix}"
    folder.mkdir()
    return folder


def replace_folder(new: Path, target: Path, old: Path) -> None:
    """Put a folder into the place of another, which goes to ``old``, and back if that fails or is
    interrupted. All on one disk."""
    try:
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def is_file(path: str | Path) -> bool:
    """Say whether there is a file; see :func:`is_folder`."""
    return os.path.isfile(path)
