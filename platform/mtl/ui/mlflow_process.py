"""MLflow's server as a process of its own (`mtl.ui.mlflow_server`): started, watched, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..common.loopback import is_loopback
from ..tracking.store import QUIET
from .addresses import Address, bracketed
from .login import PASSWORD_VARIABLE, Login
from .served_store import ServedStore, served_store

if TYPE_CHECKING:
    from ..storage.home import Home

_STOP_SECONDS = 5.0


@contextmanager
def mlflow_process(
    home: Home, address: Address, port: int, login: Login | None
) -> Iterator[subprocess.Popen]:
    """Run a server over the home's store; it and all that it started are ended at the end.

    Raises:
        InputError: the store cannot be opened, or what a login needs is not installed.
    """
    if login is not None and find_spec("flask_wtf") is None:
        raise InputError("a password in front of MLflow needs: pip install 'mlflow[auth]'")
    with served_store(home) as store, log_file(home).open("wb") as log:
        # Its own session: a terminal's Ctrl-C reaches us alone, and we end the whole group.
        process = subprocess.Popen(
            # -P: a file in the current folder must not stand in for a module.
            [sys.executable, "-P", "-m", "mtl.ui.mlflow_server"],
            env=_environment(address, port),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _tell(process, home, store, address, port, login)
            yield process
        finally:
            _end_group(process)


def log_file(home: Home) -> Path:
    """Return where the server's output goes: the home's logs, where they can be written."""
    if home.read_only:
        return Path(tempfile.gettempdir()) / f"mtl-mlflow-server-{os.getpid()}.log"
    home.logs.mkdir(parents=True, exist_ok=True)
    return home.logs / "mlflow-server.log"


def _tell(
    process: subprocess.Popen,
    home: Home,
    store: ServedStore,
    address: Address,
    port: int,
    login: Login | None,
) -> None:
    """Give a server what it is for. Through a pipe: every user sees a command line, and the same
    user an environment; a store's address may hold a password."""
    given = {
        "store": store.uri,
        "own": store.own,
        "artifacts": str(home.mlflow_artifacts),
        "host": address.ip,
        "port": port,
        "login": None if login is None else asdict(login),
    }
    pipe = process.stdin
    assert pipe is not None
    try:
        pipe.write(json.dumps(given).encode())
        pipe.close()
    except BrokenPipeError:
        pass  # it has ended already, which is seen by whoever waits for it


def _environment(address: Address, port: int) -> dict[str, str]:
    hosts = [f"{bracketed(name)}:{port}" for name in address.names]
    origins = [f"http://{host}" for host in hosts]
    for name in address.names:
        if is_loopback(name):  # a forwarded port is another; no foreign page has such a name
            hosts += _any_port(name)  # their origins MLflow takes by itself
    for name in address.others:  # a proxy's, at whatever port, and with TLS
        hosts += _any_port(name)
        origins += [f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts[-2:]]
    # A tracking address of the caller would send the server's own calls elsewhere.
    dropped = {"MLFLOW_TRACKING_URI", PASSWORD_VARIABLE}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return (
        QUIET
        | kept
        | {
            "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
            "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
            # They evaluate language models: nothing here does, and they take processes and seconds.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_ENABLE_REMOTE_ASSISTANT": "false",
        }
    )


def _any_port(name: str) -> list[str]:
    """Return a name alone and under every port, as MLflow matches them: a bracket is a pattern's
    where there is a star."""
    return [bracketed(name), f"{bracketed(name).replace('[', '[[]')}:*"]


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
