"""``mtl ui``: the MLflow UI and Optuna dashboard over what was recorded, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from minbert.errors import InputError

from .dashboard import is_loopback, local_names, make_dashboard
from .mlflow_store import QUIET, UI_PORT, connect, is_ready, masked
from .runs_view import SIDEBAR

if TYPE_CHECKING:
    from .stores import Home

_START_SECONDS = 120.0  # a cold disk and one busy core
_STOP_SECONDS = 5.0
_SHOWN = 8  # studies whose addresses are printed
# MLflow opens on pages about language models' traces unless it is told what one came for.
_RUNS_PAGE = f"/#/experiments?{SIDEBAR}"


def serve(
    home: Home,
    port: int = UI_PORT,
    dashboard_port: int = 8080,
    allow_edit: bool = False,
    host: str = "127.0.0.1",
) -> int:
    """Serve both user interfaces until SIGINT or SIGTERM, print their addresses, return 0.

    Returns 1 if the MLflow server ends by itself. A port 0 is any free one. Where the home's
    MLflow is a server already, its address is printed and only the dashboard is started.

    Raises:
        InputError: a port is taken, a store cannot be opened, or the host is not loopback.
    """
    if not is_loopback(host):
        raise InputError(f"host {host}: only loopback is served, since there is no password yet")
    remote = home.mlflow_uri.startswith(("http://", "https://"))
    if not remote:
        port = _free_port(host, port, "--port")
    dashboard_port = _free_port(host, dashboard_port, "--dashboard-port")
    with (
        _stop_asked() as stop,
        _mlflow(home, host, None if remote else port) as mlflow,
        # The dashboard comes up while MLflow's server is still importing.
        _dashboard(home, host, dashboard_port, allow_edit) as dashboard,
    ):
        address = home.mlflow_uri if remote else f"http://{host}:{port}"
        if not _wait_ready(mlflow, f"{address}/health", stop):
            return 0 if stop.is_set() else _failed(home)
        _announce(home, address, f"http://{host}:{dashboard.server_port}", allow_edit)
        while not stop.wait(0.2):
            if mlflow is not None and mlflow.poll() is not None:
                return _failed(home)
    return 0


def _free_port(host: str, port: int, option: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As the servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {host} cannot be used: {error.strerror}; choose another with "
                f"{option}, or 0 for any free one"
            ) from error
        return probe.getsockname()[1]


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event."""
    asked = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in signals}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _mlflow(home: Home, host: str, port: int | None) -> Iterator[subprocess.Popen | None]:
    """Run MLflow's own server as a process; without a port there is none to run."""
    if port is None:
        yield None
        return
    if not is_ready(home.mlflow_uri):
        connect(home.mlflow_uri)  # makes the tables where nothing was recorded yet
    with _log(home).open("wb") as log:
        # Its own session: a terminal's Ctrl-C reaches us alone, and we end the whole group.
        process = subprocess.Popen(
            _command(home, host, port),
            env=_environment(host, port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end_group(process)


def _command(home: Home, host: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "mtl.mlflow_server"),
        *("--store", home.mlflow_uri),
        *("--artifacts", home.mlflow_artifacts.absolute().as_uri()),
        *("--host", host, "--port", str(port)),
    ]


def _environment(host: str, port: int) -> dict[str, str]:
    names = [f"{_bracketed(name)}:{port}" for name in local_names(host)]
    # A tracking address of the caller would send the server's own calls elsewhere.
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return QUIET | kept | {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(names),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}" for name in names),
        # They evaluate language models: nothing here does, and they take processes and seconds.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def _end_group(process: subprocess.Popen) -> None:
    """End a process and all that it started; whatever does not end in time is killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if _group_gone(process, _STOP_SECONDS):
            break
    process.wait()


def _group_gone(process: subprocess.Popen, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.poll()  # reaps the leader, which would count as alive
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@contextmanager
def _dashboard(home: Home, host: str, port: int, allow_edit: bool) -> Iterator[WSGIServer]:
    server = make_dashboard(home, host, port, allow_edit)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="optuna-dashboard")
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _wait_ready(
    process: subprocess.Popen | None, address: str, stop: threading.Event
) -> bool:
    """Wait until a server answers; False if it ended, took too long, or a stop was asked for."""
    deadline = time.monotonic() + _START_SECONDS
    while process is not None and time.monotonic() < deadline:
        if process.poll() is not None or stop.is_set():
            return False
        try:
            with urllib.request.urlopen(address, timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            stop.wait(0.1)
    return process is None


def _announce(home: Home, mlflow: str, dashboard: str, allow_edit: bool) -> None:
    editing = "can change and delete studies" if allow_edit else "read-only"
    print(f"MLflow UI         {masked(mlflow)}{_RUNS_PAGE}")
    print(f"Optuna dashboard  {dashboard}  ({editing})")
    for name, path in _runs(home)[:_SHOWN]:
        print(f"  {name:<15} {masked(mlflow)}{path}")
    if _nothing_recorded(home):
        print(f"Nothing is recorded in {home.path} yet: `mtl study run lora_sweep` changes that.")
    print("Ctrl-C stops both.", flush=True)


def _runs(home: Home) -> list[tuple[str, str]]:
    """Return the name of every study and where MLflow lists its runs, the latest first."""
    from .stores import read_storage

    storage = read_storage(home)
    studies = storage.get_all_studies() if storage else []
    latest = sorted(studies, key=lambda study: -study._study_id)
    return [(s.study_name, s.user_attrs["runs"]) for s in latest if "runs" in s.user_attrs]


def _nothing_recorded(home: Home) -> bool:
    import optuna

    from .stores import read_storage

    storage = read_storage(home)
    recorded = storage is not None and bool(optuna.get_all_study_names(storage))
    return not recorded and not any(home.mlflow_artifacts.glob("*"))


def _log(home: Home) -> Path:
    home.logs.mkdir(parents=True, exist_ok=True)
    return home.logs / "mlflow-server.log"


def _failed(home: Home) -> int:
    log = _log(home)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1] if lines else "it wrote nothing"
    print(f"The MLflow server does not run: {last} ({log})", file=sys.stderr)
    return 1
