"""Optuna dashboard as a WSGI application that shows, and changes only if it is allowed to."""

from __future__ import annotations

import json
import socket
import warnings
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from minbert import InputError

from .login import DashboardLogin, Login

if TYPE_CHECKING:
    from ..storage.home import Home
    from .addresses import Address

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
# MLflow's server sends the first two by itself.
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    ("Referrer-Policy", "same-origin"),
]


class Guard:
    """Middleware in front of the dashboard.

    It answers 403, with the reason as JSON, to whatever would change something (the dashboard
    changes nothing on a GET), unless ``allow_edit``; to requests under another host's name, by
    which a foreign page reaches a local server (DNS rebinding); and to changes that a page of
    another origin asks for. Every answer forbids foreign pages to frame it.
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
            return self._app(environ, _with_headers(start_response))
        body = json.dumps({"reason": reason}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        status = HTTPStatus.FORBIDDEN
        _with_headers(start_response)(f"{status.value} {status.phrase}", headers)
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

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks a name server for this machine's name: it may not answer.
        TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        # As MLflow's server: no IPv4 beside it.
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        super().server_bind()


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Keep requests off the screen."""


def make_dashboard(
    home: Home, address: Address, port: int, allow_edit: bool, login: Login | None = None
) -> WSGIServer:
    """Return a server of the dashboard over a home's studies, listening but not yet serving.

    Without ``allow_edit`` its connections to the database are read-only, too. With a ``login``
    it answers to nothing else.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    from ..storage.optuna import open_storage, read_storage

    # It computes importances while a page is open: what it thinks of few trials is not for the
    # terminal.
    warnings.filterwarnings("ignore", module=r"optuna(\.|_dashboard\.)")
    if allow_edit and home.read_only:
        raise InputError(f"--allow-edit: home {home.path} cannot be written; leave it out to look")
    storage = None if allow_edit else read_storage(home)
    if storage is None:
        storage = open_storage(home)  # makes the tables where nothing was recorded yet
    store = FileSystemArtifactStore(str(home.optuna_artifacts))
    names = (*address.names, *address.others)
    guard = Guard(wsgi(storage, artifact_store=store), names, allow_edit)
    app = guard if login is None else DashboardLogin(guard, login)
    server = _Server6 if address.family == socket.AF_INET6 else _Server
    return make_server(address.ip, port, app, server_class=server, handler_class=_QuietHandler)


def _with_headers(start_response: Callable) -> Callable:
    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable:
        return start_response(status, [*headers, *_HEADERS], *error)

    return start


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
