"""Paths as URLs and back: whatever letters a folder's name has, it stays the same folder.

SQLAlchemy reads the path of an SQLite URL as percent-encoded. MLflow takes the same text as it
stands, and makes the folder that it names, unless the URL names its driver, too. Optuna takes it
as a template, in which braces stand for its own words.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit
from urllib.request import url2pathname

from minbert import InputError

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]*)(?P<query>(?:\?.*)?)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_server(url: str) -> bool:
    """Tell whether an MLflow at an address is a server, which is asked over HTTP."""
    return url.partition("://")[0].lower() in ("http", "https")


def sqlite_url(file: Path) -> str:
    """Return the URL of an SQLite file, which is this file to SQLAlchemy, MLflow and Optuna."""
    return _spelled(str(file))


def alike(url: str) -> str:
    """Return the URL of an SQLite file, as SQLAlchemy reads it, in a spelling that MLflow and
    Optuna read so, too; any other address as it is."""
    found = _SQLITE.fullmatch(url)
    if found is None or found["path"] in ("", ":memory:"):
        return url
    return _spelled(unquote(found["path"])) + found["query"]


def _spelled(path: str) -> str:
    # Readable where that is possible: it is shown, and typed again.
    text = "".join(quote(letter) if letter in "%?{}" else letter for letter in path)
    return f"sqlite:///{text}" if text == path else f"sqlite+pysqlite:///{text}"


def optuna_template(url: str) -> str:
    """Return a database's URL as Optuna's storage takes it: braces, of a password say, doubled."""
    return url.replace("{", "{{").replace("}", "}}")


def sqlite_connection(file: Path, options: str) -> str:
    """Return an SQLite file as ``sqlite3.connect(..., uri=True)`` takes it.

    Args:
        options: such as ``mode=ro``.
    """
    return f"file://{quote(str(file.absolute()))}?{options}"


def file_url(path: Path) -> str:
    """Return the ``file:`` URL of a path, as MLflow has artifacts and datasets."""
    return f"file://{quote(str(path.absolute()))}"


def file_path(url: str) -> Path | None:
    """Return the path of a ``file:`` URL, or of an address without a scheme, which MLflow reads as
    percent-encoded, too; None for addresses elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no address
        return None
    if parts.scheme not in ("", "file"):
        return None
    return Path(url2pathname(parts.path if parts.scheme else url))


def plain(path: Path) -> Path:
    """Return a path as every library takes it: absolute, without a second slash at its beginning,
    behind which a URL has a host."""
    return Path("/" + str(path.absolute()).lstrip("/"))


def check_spelling(name: str, path: Path) -> None:
    """Refuse what cannot stand in a line, a URL or a database.

    Args:
        name: what the path was given as, for the message.

    Raises:
        InputError: it has control characters, or is not UTF-8.
    """
    text = str(path)
    if _CONTROL.search(text):
        raise InputError(f"{name}={text!r} has control characters; give a folder without them")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name}={text!r} is not UTF-8; give a folder whose name is") from None
