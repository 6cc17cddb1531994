"""A real PostgreSQL server of the tests' own, and a proxy in front of it that loses answers."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

USER, PASSWORD = "mtl", "ge/heim@nis:1"  # every letter that a URL must quote
_PATIENCE = 60.0  # seconds until a server answers, on a busy machine


def binaries() -> Path | None:
    """The folder with PostgreSQL's programs: Debian keeps them off the PATH. None without them."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class Postgres:
    """A server on a free port of 127.0.0.1, with a password, in a temporary folder."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._account = _account()
        self._folder = Path(tempfile.mkdtemp(prefix="mtl-postgres-"))
        self._data, self._log = self._folder / "data", self._folder / "log"
        self.port = free_port()
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._account:
            for path in (self._folder, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        self._run(
            *("initdb", "-D", self._data, "-U", USER, "--pwfile", password),
            *("-A", "scram-sha-256", "-E", "UTF8", "--locale", "C", "--no-sync"),
        ).wait()
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = self._run(
            *("postgres", "-D", self._data, "-p", self.port, "-h", "127.0.0.1", "-k", ""),
            *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=60"),
        )
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, "PostgreSQL does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it at once: every connection is closed."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": what is not committed is undone
            self._process.wait(_PATIENCE)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def database(self, encoding: str = "UTF8") -> str:
        """Make a new database; return its URL."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self._execute(f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0")
        return self.url(name)

    def url(self, database: str, port: int | None = None) -> str:
        url = sa.URL.create(
            "postgresql+psycopg", USER, PASSWORD, "127.0.0.1", port or self.port, database
        )
        return url.render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    def _answers(self) -> bool:
        try:
            self._execute("SELECT 1")
        except sa.exc.OperationalError:
            return False
        return True

    def _run(self, program: str, *args: object) -> subprocess.Popen:
        who = {}
        if self._account:  # PostgreSQL does not run as root
            who = {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(self._programs / program), *map(str, args)],
                stdout=log, stderr=log, cwd="/", start_new_session=True, **who,
            )  # fmt: skip


def _account() -> pwd.struct_passwd | None:
    """Whom the server runs as where the tests run as root."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


class LossyProxy:
    """Forwards to a server; loses connections when it is told to.

    Attributes:
        requests: that came so far; each is one round trip of the driver.
        lost: requests, by their number, whose connections are closed: with ``True`` after the
            server has done what it was asked, so that the answer is all that is lost.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self.requests = 0
        self.lost: dict[int, bool] = {}
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answers = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            answers.start()
            while request := _received(client):
                with self._lock:
                    self.requests += 1
                    done = self.lost.pop(self.requests, None)
                if done is None:
                    server.sendall(request)
                    continue
                client.shutdown(socket.SHUT_RDWR)
                if done:
                    server.sendall(request)
                    time.sleep(0.05)  # it is done by then
                break
            with suppress(OSError):  # the server was quicker
                server.shutdown(socket.SHUT_RDWR)
            answers.join()

    @staticmethod
    def _answer(server: socket.socket, client: socket.socket) -> None:
        while answer := _received(server):
            try:
                client.sendall(answer)
            except OSError:
                return


def _received(place: socket.socket) -> bytes:
    try:
        return place.recv(1 << 16)
    except OSError:
        return b""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
