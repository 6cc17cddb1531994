"""The one name and password that open both user interfaces, and the check in front of each."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from minbert.errors import InputError

USER_VARIABLE, PASSWORD_VARIABLE = "MTL_UI_USER", "MTL_UI_PASSWORD"
SHORTEST = 12
"""Characters of a password; MLflow takes no fewer."""

_DIFFERENT = 5  # letters that a password has at least: aaaaaaaaaaaa is none
_OPEN_SECRETS = frozenset({"password1234"})  # MLflow shipped it once, and refuses it now
_STATUS = HTTPStatus.UNAUTHORIZED
_BODY = b"This page asks for a name and a password.\n"
_HEADERS = (
    ("WWW-Authenticate", 'Basic realm="mtl"'),
    ("Content-Type", "text/plain; charset=utf-8"),
    ("Content-Length", str(len(_BODY))),
    ("Cache-Control", "no-store"),
)


@dataclass(frozen=True)
class Login:
    """A name and a password."""

    user: str
    password: str = field(repr=False)

    def accepts(self, authorization: str | None) -> bool:
        """Tell whether a request's Authorization header is this login (HTTP Basic).

        The time it takes tells nothing about how much of it is right.
        """
        kind, _, encoded = (authorization or "").partition(" ")
        if kind.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(given, f"{self.user}:{self.password}".encode())


def find_login(needed: str | None, ask: Callable[[], str] | None = None) -> Login | None:
    """Return the login that the environment gives, else asks for; None if there is no need.

    Args:
        needed: why there must be one, as the beginning of a sentence; None if there need not be.
        ask: reads a password from a terminal, if there is one.

    Raises:
        InputError: none is given, or it is no good. The line says what to set, never what was set.
    """
    user = os.environ.get(USER_VARIABLE, "mtl")
    password = os.environ.get(PASSWORD_VARIABLE)
    if password is not None:
        return _login(user, lambda: password, PASSWORD_VARIABLE)
    if needed is None:
        return None
    if ask is None:
        raise InputError(
            f"{needed} and needs a password: set {PASSWORD_VARIABLE} ({SHORTEST} characters or "
            "more), or start it at a terminal, which asks for one"
        )
    return _login(user, ask, "the password")


def _login(user: str, read: Callable[[], str], source: str) -> Login:
    """Return a login that is good; the password is not read where the name is not."""
    _check_user(user)
    password = read()
    _check_password(password, source)
    return Login(user, password)


def _check_user(user: str) -> None:
    if not user or ":" in user or not _is_printable(user):
        raise InputError(f"{USER_VARIABLE} is no name: letters and digits, and no colon")


def _check_password(password: str, source: str) -> None:
    if not password:
        raise InputError(f"{source} is empty; give {SHORTEST} characters or more")
    if len(password) < SHORTEST:
        raise InputError(f"{source} is too short; give {SHORTEST} characters or more")
    if not _is_printable(password):  # programs differ in how they send others
        raise InputError(f"{source} has characters outside printable ASCII; leave them out")
    if len(set(password)) < _DIFFERENT or password in _OPEN_SECRETS:
        raise InputError(f"{source} is too easily guessed; take another")


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()


class DashboardLogin:
    """WSGI middleware: nothing is answered without the login but that it is asked for."""

    def __init__(self, app: Callable, login: Login) -> None:
        self._app, self._login = app, login

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        if self._login.accepts(environ.get("HTTP_AUTHORIZATION")):
            return self._app(environ, start_response)
        start_response(f"{_STATUS.value} {_STATUS.phrase}", list(_HEADERS))
        return [_BODY]


class MlflowLogin:
    """ASGI middleware: the same, in front of the whole of MLflow's server.

    MLflow's own basic-auth application leaves some paths open to everybody (``/health``,
    ``server-info``, whatever begins with ``/static``), and decides by lists of paths.

    Nobody gets at its assistant: that runs commands on this machine for whoever seems to ask from
    this machine, and everybody does who comes through a proxy on it.
    """

    def __init__(self, app: Callable, login: Login) -> None:
        self._app, self._login = app, login

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._login.accepts(_authorization(scope)):
            await _answer(send, _STATUS, _HEADERS, _BODY)
        elif "/mlflow/assistant" in scope["path"]:
            await _answer(send, HTTPStatus.FORBIDDEN, (), b"The assistant is off.\n")
        else:
            await self._app(scope, receive, send)


def _authorization(scope: dict) -> str | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    return given[0].decode("latin-1") if len(given) == 1 else None


async def _answer(send: Callable, status: HTTPStatus, headers: Iterable, body: bytes) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": status.value, "headers": raw})
    await send({"type": "http.response.body", "body": body})
