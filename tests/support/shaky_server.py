"""A real MLflow server that can be stopped, suspended, or made to answer 500."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from .readers import ask
from .tracking_samples import new_store

_PATIENCE = 120.0  # seconds until a server answers, on a busy machine
# `mlflow server` in one process: the command, which imports all of MLflow, would start another one
# that does, too. Uvicorn comes first, or MLflow takes itself for no server and checks no host.
_COMMAND = """
import os, sys, uvicorn.main
import mlflow.server
from mlflow.cli import cli

def serve(command, extra_env, **_):
    os.environ.update(extra_env)
    uvicorn.main.main(command[command.index("uvicorn") + 1 :])

mlflow.server._exec_cmd = serve
cli(["server", *sys.argv[1:]])
"""
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class ShakyServer:
    """`mlflow server` on an SQLite file and artifacts of its own, behind a proxy.

    Clients keep one address whatever becomes of the server: while it is stopped their connections
    are closed without an answer; while it is suspended they wait.

    Args:
        store: a database URL in the place of the SQLite file.
        artifacts: options that say where artifacts go, the folder last; none: the server takes
            them.

    Attributes:
        address: of the proxy.
        troubled: not answering as it should, by intention.
    """

    def __init__(
        self, folder: Path, store: str | None = None, artifacts: tuple[str, ...] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._artifacts = artifacts or ("--artifacts-destination", str(folder / "artifacts"))
        if store is None and not (folder / "mlflow.db").exists():
            self._make_store(artifacts[-1] if artifacts else "mlflow-artifacts:")
        self._store = store or f"sqlite:///{folder / 'mlflow.db'}?timeout=60"
        self.troubled = False
        self._port = _free_port()
        self._process: subprocess.Popen | None = None
        self._failing = False
        self._gone = False
        self._proxy = _Proxy(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._proxy.server_port}"
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        self._start()

    def _make_store(self, root: str) -> None:
        """Make the tables, for which the server takes seconds, as it would make them."""
        new_store(file := self.folder / "mlflow.db")
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("update experiments set artifact_location = ?", (f"{root}/0",))
            connection.commit()

    def close(self) -> None:
        self._stop()
        self._proxy.shutdown()
        self._proxy.server_close()

    def trouble(self, kind: str, seconds: float, sleep=time.sleep) -> None:
        """Be away for a while: `stop` (SIGTERM, and started again), `hang` (SIGSTOP, SIGCONT) or
        `500`."""
        self.troubled = True
        try:
            {"stop": self._stop, "hang": self._hang, "500": self._fail}[kind]()
            sleep(seconds)
        finally:
            {"stop": self._start, "hang": self._wake, "500": self._mend}[kind]()
            self.troubled = False

    def _start(self) -> None:
        command = [
            *(sys.executable, "-c", _COMMAND, "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--backend-store-uri", self._store),
            *self._artifacts,
        ]
        env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        env |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=env, start_new_session=True
            )
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                ask(f"http://127.0.0.1:{self._port}/health")
                return
            except OSError:
                assert self._process.poll() is None, f"see {self.folder / 'server.log'}"
                assert time.monotonic() < end, "the MLflow server does not answer"
                time.sleep(0.1)

    def _stop(self) -> None:
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()

    def _hang(self) -> None:
        self._signal(signal.SIGSTOP)

    def _wake(self) -> None:
        self._signal(signal.SIGCONT)

    def _fail(self) -> None:
        self._failing = True

    def _mend(self) -> None:
        self._failing = False

    def _vanish(self) -> None:
        """As if it were stopped, to its clients; a start takes it seconds."""
        self._gone = True

    def _appear(self) -> None:
        self._gone = False

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Forward(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in one packet: in two, it waits for an acknowledgement

            def log_message(self, *_: object) -> None:
                """Keep requests off the screen."""

            def forward(self) -> None:
                body = _body(self)
                if server._gone:
                    self.close_connection = True
                    return
                if server._failing:
                    self.answer(500, {}, b"made to fail")
                    return
                try:
                    self.answer(*server._ask(self.command, self.path, body, self.headers))
                except OSError:  # it is stopped: as a server that is gone, without a word
                    self.close_connection = True

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = forward

        return Forward

    def _ask(self, method: str, path: str, body: bytes, headers) -> tuple[int, dict, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in _HOP}
            connection.request(method, path, body, kept)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP}
            return answer.status, kept, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that are killed in the middle of a request."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _body(request: BaseHTTPRequestHandler) -> bytes:
    """Read a request's body, chunked or of a known length."""
    if request.headers.get("Transfer-Encoding", "").lower() != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length", 0)))
    body = b""
    while size := int(request.rfile.readline().split(b";")[0], 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
