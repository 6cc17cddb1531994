"""Secrets kept out of everything that is shown, logged or recorded.

A secret is the password of an address, a telling value of its query (``?password=``), or a
variable of the environment whose name says so (``MLFLOW_TRACKING_TOKEN``). Each is known by its
text, so it is found wherever a library puts it: in an error's message, a traceback, a log.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO
from urllib.parse import quote, unquote, unquote_plus

MASK = "***"
_WORDS = (
    *("password", "passwd", "passphrase", "pwd", "secret", "token", "credential"),
    *("api_key", "apikey", "access_key", "odbc_connect"),
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|SECRET_KEY|API_KEY|ACCESS_KEY)$")
_LOGIN = re.compile(r"(?<=://)([^\s/@:]*):[^\s/@]+@")
_QUERY = re.compile(rf"(?i)([?&][\w.-]*(?:{'|'.join(_WORDS)})[\w.-]*=)[^&\s'\"]+")
_SHORT = 4  # a shorter secret would take ordinary words apart; it goes only where one stands
_PIECE = 6  # of a password, as far as it is masked on its own


def masked(url: str) -> str:
    """Return an address as it may be shown: with its user, without its secrets."""
    shown = url if _is_file(url) else _masked_login(url)
    head, mark, query = shown.partition("?")
    return head + mark + "&".join(map(_masked_pair, query.split("&")))


def without_login(url: str) -> str:
    """Return an address for somebody else's browser: neither user nor secrets."""
    scheme, separator, rest = masked(url).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def secrets_of(url: str) -> set[str]:
    """Return the secrets that an address holds, in every way of writing them.

    Passwords that should have been quoted and were not (``@``, ``/``, ``?``) are found too, and
    the pieces that a driver takes for a host or a path then.
    """
    found: set[str] = set()
    for pair in url.partition("?")[2].split("&"):
        key, _, value = pair.partition("=")
        if _tells(key):
            found.add(value)
    rest = url.partition("://")[2] or url
    ends = [] if _is_file(url) else [i for i, letter in enumerate(rest) if letter == "@"]
    for end in ends:
        password = rest[:end].partition(":")[2]
        found |= {password, *(p for p in re.split(r"[@/?#:]", password) if len(p) >= _PIECE)}
    return {way for secret in found if secret for way in _ways(secret)}


def environment_secrets(environment: Mapping[str, str] = os.environ) -> set[str]:
    """Return the secrets of the environment: of its addresses, and where a name says secret."""
    found: set[str] = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name):
            found |= _ways(value)
        elif "://" in value or name == "MTL_STORAGE":
            found |= secrets_of(value)
    return found - {""}


def without(text: str, hidden: Iterable[str]) -> str:
    """Return a text with these secrets masked, and those of every address that stands in it."""
    for secret in sorted(hidden, key=len, reverse=True):
        if len(secret) >= _SHORT:
            text = text.replace(secret, MASK)
        else:
            short = re.escape(secret)
            text = re.sub(rf"(?<=:){short}(?=@)|(?<==){short}(?=[&\s'\"]|$)", MASK, text)
    return _QUERY.sub(rf"\1{MASK}", _LOGIN.sub(rf"\1:{MASK}@", text))


def clean(text: str) -> str:
    """Return a text with every secret that this process was given masked."""
    return without(text, environment_secrets())


def mask_logging() -> None:
    """Mask what any library logs in this process."""
    make = logging.getLogRecordFactory()

    def make_masked(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            record.msg, record.args = clean(record.getMessage()), ()
        except (TypeError, ValueError):  # arguments that do not fit: logging itself says so
            return record
        return record

    logging.setLogRecordFactory(make_masked)


def mask_streams(hidden: Iterable[str] = ()) -> None:
    """Mask all that this process prints, tracebacks included: for one that prints into a log.

    Args:
        hidden: secrets that are not in the environment.
    """
    known = set(hidden) | environment_secrets()
    sys.stdout, sys.stderr = (_Masking(stream, known) for stream in (sys.stdout, sys.stderr))


class _Masking:
    """A text stream in front of another, which gets to see no secret."""

    def __init__(self, stream: TextIO, hidden: set[str]) -> None:
        self._stream, self._hidden = stream, hidden

    def write(self, text: str) -> int:
        self._stream.write(without(text, self._hidden))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_file(url: str) -> bool:
    return url.startswith(("sqlite:", "sqlite+", "file:"))  # an @ is a part of the path


def _masked_login(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    # Up to the last @: a password that was not quoted as it should be is a password still.
    login, at, place = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{scheme}{separator}{user}:{MASK}{at}{place}" if colon else url


def _masked_pair(pair: str) -> str:
    key, equals, _ = pair.partition("=")
    return f"{key}={MASK}" if equals and _tells(key) else pair


def _tells(key: str) -> bool:
    return any(word in unquote(key).lower() for word in _WORDS)


def _ways(secret: str) -> set[str]:
    """Return a secret as it is written, as it is meant, and as messages and JSON spell it."""
    plain = {secret, unquote(secret), unquote_plus(secret)}
    spelled = {way(text) for text in plain for way in (_quoted, _as_repr, _as_json)}
    return plain | spelled


def _quoted(text: str) -> str:
    return quote(text, safe="")


def _as_repr(text: str) -> str:
    return repr(text)[1:-1]


def _as_json(text: str) -> str:
    return json.dumps(text)[1:-1]
