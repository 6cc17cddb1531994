"""Optuna dashboard as a WSGI application that shows and, unless it is allowed to, changes nothing.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable
from http import HTTPStatus
from ipaddress import ip_address
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from .stores import Home

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Middleware in front of the dashboard.

    It answers 403, with the reason as JSON, to whatever would change something (the dashboard
    changes nothing on a GET), unless ``allow_edit``; to requests under another host's name, by
    which a foreign page reaches a local server (DNS rebinding); and to changes that a page of
    another origin asks for.
    """

    def __init__(self, app: Callable, hosts: Iterable[str], allow_edit: bool) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._allow_edit = allow_edit

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        reason = self._refusal(environ)
        if reason is None:
            # The dashboard answers 500 to a request without this header.
            environ.setdefault("HTTP_ACCEPT_ENCODING", "identity")
            return self._app(environ, start_response)
        body = json.dumps({"reason": reason}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        status = HTTPStatus.FORBIDDEN
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _refusal(self, environ: dict[str, Any]) -> str | None:
        if _hostname(f"//{environ.get('HTTP_HOST', '')}") not in self._hosts:
            return "this dashboard answers under the name of its own host only"
        if environ["REQUEST_METHOD"] in _READING:
            return None
        if not self._allow_edit:
            return "this dashboard is read-only; start it with `mtl ui --allow-edit` to change"
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and _hostname(origin) not in self._hosts:
            return "changes are taken from this dashboard's own pages only"
        return None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a browser's open connection does not hold up the end


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep requests off the screen."""


def make_dashboard(home: Home, host: str, port: int, allow_edit: bool) -> WSGIServer:
    """Return a server of the dashboard over a home's studies, listening but not yet serving.

    Without ``allow_edit`` its connections to the database are read-only, too.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    from .stores import open_storage, read_storage

    # It computes importances while a page is open: what it thinks of few trials is not for the
    # terminal.
    warnings.filterwarnings("ignore", module=r"optuna(\.|_dashboard\.)")
    storage = None if allow_edit else read_storage(home)
    if storage is None:
        storage = open_storage(home)  # makes the tables where nothing was recorded yet
    store = FileSystemArtifactStore(str(home.optuna_artifacts))
    app = Guard(wsgi(storage, artifact_store=store), local_names(host), allow_edit)
    return make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)


def local_names(host: str) -> list[str]:
    """Return the host names under which a server that listens on ``host`` may be asked."""
    return sorted({host, "localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Tell whether an address is reachable from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
