"""Pickles, which are never read: loading one runs whatever it says. They are refused by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")


def is_pickle(file: Path) -> bool:
    """Tell whether a file that is no safetensors is a pickle, by its name or its first bytes."""
    return file.suffix.lower() in _ENDINGS or _looks_pickled(file)


def find_pickle(names: Iterable[str]) -> str | None:
    """Return the first of some files' names that is a pickle's."""
    return next((n for n in sorted(names) if n.lower().endswith(_ENDINGS)), None)


def refusal(file: Path | str) -> str:
    """Say that a file is a pickle, and what would be right."""
    return f"{file} is a pickle, which is never read; convert the weights to safetensors"


def pickle_in(folder: Path) -> str | None:
    """Return what to say of a folder that has a pickle instead of what is looked for."""
    found = find_pickle(file.name for file in folder.glob("*"))
    return None if found is None else refusal(folder / found)


def _looks_pickled(file: Path) -> bool:
    try:
        with file.open("rb") as source:
            begin = source.read(4)
    except OSError:
        return False
    # PyTorch's are zip archives of one; others begin with the protocol's number.
    return begin == b"PK\x03\x04" or (begin[:1] == b"\x80" and begin[1:2] in b"\2\3\4\5")
