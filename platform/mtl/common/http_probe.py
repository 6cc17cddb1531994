"""Addresses with a login in them, asked with a short patience."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from typing import NamedTuple
from urllib.parse import unquote

from .loopback import opener

PATIENCE = 3.0
"""Seconds that a server has to answer."""

_MOST = 100_000  # bytes of an answer that are read


class Answer(NamedTuple):
    """A server's answer: HTTP status, and the beginning of the text."""

    status: int
    text: str


def ask(url: str, path: str, body: dict | None = None) -> Answer:
    """Ask a server; with a body it is a POST of JSON. An error status is an answer, too.

    The login in the address or in MLFLOW_TRACKING_USERNAME and its kin goes along, as MLflow's
    own client sends it.

    Raises:
        OSError, http.client.HTTPException, ValueError: nobody answers, or not in HTTP.
    """
    address, login = _split(url)
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address.rstrip("/") + path, data=data)
    request.add_header("Content-Type", "application/json")
    if authorization := _authorization(login):
        request.add_header("Authorization", authorization)
    try:
        with opener(address).open(request, timeout=PATIENCE) as answer:
            return Answer(answer.status, answer.read(_MOST).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(_MOST).decode(errors="replace"))


def _split(url: str) -> tuple[str, str]:
    """Split an address into itself without the login, and the login."""
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    login, _, host = host.rpartition("@")
    return f"{scheme}{slashes}{host}{slash}{path}", login


def _authorization(login: str) -> str | None:
    if login:
        name, _, password = login.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}"
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {token}"
    elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{user}:{os.environ.get('MLFLOW_TRACKING_PASSWORD', '')}"
    else:
        return None
    return "Basic " + base64.b64encode(pair.encode()).decode()
