"""``mtl ui``: the MLflow UI and Optuna dashboard over what was recorded.

On loopback they are for whoever uses this machine. Elsewhere, or under a proxy's name, they ask for
a password, both for the same one.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIServer

from minbert import InputError

from ..common.masking import without_login
from ..terminal.console import busy
from ..tracking.runs_view import SIDEBAR
from ..tracking.store import UI_PORT
from .addresses import LOOPBACK, Address, bracketed
from .dashboard import make_dashboard
from .login import Login, find_login
from .mlflow_process import log_file, mlflow_process
from .readiness import last_words, wait_ready
from .served_store import is_copied

if TYPE_CHECKING:
    from ..storage.home import Home

_SHOWN = 8  # studies whose addresses are printed
# MLflow opens on pages about language models' traces unless it is told what one came for.
_RUNS_PAGE = f"/#/experiments?{SIDEBAR}"


def serve(
    home: Home,
    port: int = UI_PORT,
    dashboard_port: int = 8080,
    allow_edit: bool = False,
    host: str = LOOPBACK,
    allowed_hosts: Sequence[str] = (),
    ask: Callable[[], str] | None = None,
) -> int:
    """Serve both user interfaces until SIGINT or SIGTERM, print their addresses, return 0.

    Returns 1 if the MLflow server ends by itself. A port 0 is any free one. Where the home's
    MLflow is a server already, its address is printed and only the dashboard is started.

    Args:
        host: the address to listen on. Any but loopback needs a password, from the environment
            (`mtl.ui.login`) or asked for; if the environment has one, loopback asks for it, too.
        allowed_hosts: further names under which they may be asked, a proxy's; need a password.
        ask: reads a password from a terminal, if there is one.

    Raises:
        InputError: a port is taken, or both are the same, a store cannot be opened, the host is no
            address of this machine, or there is no good password where there must be one.
    """
    remote = home.mlflow_is_server
    if not remote:
        _check_two_ports(port, dashboard_port)
    address = Address.resolve(host, allowed_hosts)
    login = find_login(_why_a_password(address), ask)
    if not remote:
        port = address.free_port(port, "--port")
    dashboard_port = address.free_port(dashboard_port, "--dashboard-port")
    started = nullcontext() if remote else mlflow_process(home, address, port, login)
    with (
        _stop_asked() as stop,
        started as mlflow,
        # The dashboard comes up while MLflow's server is still importing.
        _dashboard(home, address, dashboard_port, allow_edit, login) as dashboard,
    ):
        root = without_login(home.mlflow_uri) if remote else address.url(port)
        if mlflow is not None:
            with busy("Starting MLflow"):
                fault = wait_ready(mlflow, f"{root}/health", stop)
            if fault is not None:
                return _failed(home, mlflow, fault)
        if stop.is_set():
            return 0
        _announce(home, root, address.url(dashboard.server_port), allow_edit)
        if login is not None:
            _warn(address, [] if remote else [port], dashboard.server_port, login)
        print("Ctrl-C stops both.", flush=True)
        return _wait_for_end(home, mlflow, stop)


def _check_two_ports(port: int, dashboard_port: int) -> None:
    if port == dashboard_port != 0:
        raise InputError(
            f"--port and --dashboard-port are both {port}: give two different ones, or 0 for any "
            "free one"
        )


def _wait_for_end(home: Home, mlflow: subprocess.Popen | None, stop: threading.Event) -> int:
    """Wait until a stop is asked for, or MLflow's server ends by itself; return the exit code."""
    while not stop.wait(0.2):
        if mlflow is not None and mlflow.poll() is not None:
            return _failed(home, mlflow, "does not run")
    return 0


def _why_a_password(address: Address) -> str | None:
    if not address.loopback:
        return f"host {address.given} is reachable from other machines"
    if address.others:
        return f"a server under the name {address.others[0]} is for other machines"
    return None


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
def _dashboard(
    home: Home, address: Address, port: int, allow_edit: bool, login: Login | None
) -> Iterator[WSGIServer]:
    server = make_dashboard(home, address, port, allow_edit, login)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="optuna-dashboard")
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _announce(home: Home, mlflow: str, dashboard: str, allow_edit: bool) -> None:
    editing = "can change and delete studies" if allow_edit else "read-only"
    print(f"MLflow UI         {mlflow}{_RUNS_PAGE}")
    print(f"Optuna dashboard  {dashboard}  ({editing})")
    for name, path in _runs(home)[:_SHOWN]:
        print(f"  {name:<15} {mlflow}{path}")
    if is_copied(home):
        print("MLflow's store can only be read: its page shows a copy of it, which follows what is")
        print("recorded. What is changed on that page is not kept.")
    if _nothing_recorded(home):
        print(f"Nothing is recorded in {home.path} yet: `mtl study run lora_sweep` changes that.")


def _warn(address: Address, mlflow: list[int], dashboard: int, login: Login) -> None:
    """Say who can reach what is served, and what that means."""
    print(f"Asked for: the name {login.user} and the password.")
    if address.loopback and not address.others:
        return
    print("Both can be reached from other machines:" if mlflow else "It can be reached as:")
    for name in address.outside:
        places = [f"{bracketed(name)}:{port}" for port in (*mlflow, dashboard)]
        print(f"  {'  '.join(places) if name not in address.others else name}")
    print("The password and all pages travel unencrypted: whoever is on the way can read them.")
    print("For more than a trusted network put a proxy with TLS in front (docs/security.md).")


def _runs(home: Home) -> list[tuple[str, str]]:
    """Return the name of every study and where MLflow lists its runs, the latest first."""
    from ..storage.optuna import read_storage

    storage = read_storage(home)
    studies = storage.get_all_studies() if storage else []
    latest = sorted(studies, key=lambda study: -study._study_id)
    return [(s.study_name, s.user_attrs["runs"]) for s in latest if "runs" in s.user_attrs]


def _nothing_recorded(home: Home) -> bool:
    import optuna

    from ..storage.optuna import read_storage

    storage = read_storage(home)
    recorded = storage is not None and bool(optuna.get_all_study_names(storage))
    return not recorded and not any(home.mlflow_artifacts.glob("*"))


def _failed(home: Home, mlflow: subprocess.Popen | None, fault: str) -> int:
    log = log_file(home)
    text = log.read_text(encoding="utf-8", errors="replace")
    code = None if mlflow is None else mlflow.poll()
    print(f"The MLflow server {fault}: {last_words(text, code)} ({log})", file=sys.stderr)
    return 1
