"""Study files as text: where they lie, reading TOML, and finding the line that a key stands in."""

from __future__ import annotations

import difflib
import errno
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from minbert import KEYS, InputError
from minbert.common.paths import given_path, is_file, is_folder


class NoSuchStudyError(InputError):
    """No study of a name came with this installation."""


def shipped_folder() -> Path:
    """The folder of the studies that come with the project (in the wheel, or in the sources)."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "studies", package.parents[1] / "studies"):
        if folder.is_dir():
            return folder
    raise InputError("no studies came with this installation; give the path of a study file")


def find_study_file(name_or_file: str) -> Path:
    """Find a study file: a path (ends in .toml or has a separator) or a shipped study's name.

    Raises:
        InputError: no such file, or no such study (the nearest known one is named).
    """
    if "\0" in name_or_file:
        raise InputError(f"study {name_or_file!r}: a name cannot hold a NUL character")
    if name_or_file.endswith(".toml") or "/" in name_or_file or "\\" in name_or_file:
        path = given_path(name_or_file)
        if not is_file(path):
            raise InputError(f"{name_or_file}: {_why_no_file(path)}")
        return path
    known = {path.stem: path for path in sorted(shipped_folder().glob("*.toml"))}
    if name_or_file not in known:
        hint = nearest(name_or_file, known)
        file = f"; for a file write ./{name_or_file}" if is_file(Path(name_or_file)) else ""
        raise NoSuchStudyError(f"unknown study {name_or_file!r}; {hint}{file}")
    return known[name_or_file]


def _why_no_file(path: Path) -> str:
    if is_folder(path):
        return "is a folder; give the study file in it"
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "is a symbolic link that leads to itself"
        return "there is no such study file"
    except ValueError:  # a half of a character
        return "there is no such study file"
    return "is not a regular file"


def nearest(word: str, known: Iterable[str]) -> str:
    """Say what was probably meant: ``did you mean X?``, with everything known."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    everything = f"known: {', '.join(known) or 'none'}"
    return f"did you mean {close[0]}? ({everything})" if close else everything


def read_toml(path: Path) -> tuple[dict[str, Any], str]:
    """Read a TOML file; return its content and its text.

    Raises:
        InputError: it cannot be read, is no UTF-8 text, or is no TOML (with the line).
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise InputError(f"{where}: not TOML: {reason}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{path}: not TOML: {str(error).partition(';')[0]}") from None
    except RecursionError:
        raise InputError(f"{path}: not TOML: nested too deeply") from None


_HEADER = re.compile(r"^\s*\[{1,2}\s*(.*?)\s*\]{1,2}\s*(#.*)?$")
_ASSIGN = re.compile(r"""^\s*((?:[\w.-]+|"[^"]*"|'[^']*'|\s*\.\s*)+)\s*=""")


def find_line(text: str, section: str, key: str) -> int | None:
    """Find the line of a dotted key inside a section (``""``: the top), counted from 1.

    The text is searched as text: TOML's reader keeps no positions. A key that is written twice
    (in two points) is found at its first place.
    """
    wanted = _unquoted(f"{section}.{key}" if section else key)
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _unquoted(header[1])
            if table == wanted:
                return number
        elif (assign := _ASSIGN.match(line)) and _unquoted(f"{table}.{assign[1]}") == wanted:
            return number
    return None


def _unquoted(dotted: str) -> str:
    return re.sub(r"""["'\s]""", "", dotted).strip(".")


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Turn nested tables into dotted keys; quoted dotted keys come out the same way.

    A table that stands where a value belongs, or is empty and no group of keys, is the value:
    whoever checks the key refuses it.
    """
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and not _is_value(name, value):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def _is_value(name: str, table: Mapping[str, Any]) -> bool:
    if name in KEYS or {"low", "high"} & table.keys():
        return True
    return not table and not any(key.startswith(f"{name}.") for key in KEYS)
