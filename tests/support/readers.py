"""Those who look on while a study runs: open pages that ask both user interfaces, over and over."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MTL = str(Path(sysconfig.get_path("scripts")) / "mtl")
# What a process prints that could not read or write what it had to.
TROUBLE = re.compile(r"database is locked|OperationalError|Traceback|QueuePool|disk I/O error")


@contextmanager
def served(home: Path, log: Path | None = None, **env: str) -> Iterator[tuple[str, str, str]]:
    """Run `mtl ui` over a home; yield what it said and the addresses of MLflow and the dashboard.
    Ctrl-C ends it, with code 0.

    What goes wrong in it is added to a log, the home's logs/ui.log if no other is named.
    """
    log = log or home / "logs/ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [MTL, "ui", "--port", "0", "--dashboard-port", "0"],
            env={**os.environ, "MTL_HOME": str(home), "PYTHONUNBUFFERED": "1", **env},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    said = ""
    try:
        while "Ctrl-C stops both." not in said:
            line = process.stdout.readline()
            assert line, f"mtl ui ended: {said} {log.read_text()}"
            said += line
        yield said, *re.findall(r"^(?:MLflow UI|Optuna dashboard) +(http://[\d.:]+)", said, re.M)
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    assert code == 0, f"mtl ui ended with {code}: {log.read_text()}"


def ask(url: str, body: object = None) -> bytes:
    """Return the answer to a request: a GET, or the POST of a body as JSON.

    Raises:
        OSError: it was refused, or there was no answer.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read()


class Reader:
    """Does something over and over until it is stopped.

    Attributes:
        reads: how often it succeeded. refused: how often it failed while that was excused.
        faults: what went wrong beside that.
    """

    def __init__(
        self,
        read: Callable[[], None],
        name: str,
        pause: float,
        excused: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name, self._read, self._pause, self._excused = name, read, pause, excused
        self.reads = self.refused = 0
        self.faults: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._go, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(timeout=90)

    def _go(self) -> None:
        while not self._stopped.wait(self._pause):
            excused = self._excused()
            try:
                self._read()
                self.reads += 1
            except (OSError, ValueError, KeyError, AssertionError) as error:
                if excused or self._excused():
                    self.refused += 1
                else:
                    self.faults.append(f"{self.name}: {_told(error)}")

def _told(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"{error.url}: {error.code} {error.read()[:300]!r}"
    return f"{type(error).__name__}: {error}"


def dashboard_page(address: str) -> Callable[[], None]:
    """What an open page of the dashboard asks for: every study, and each with all its trials."""

    def read() -> None:
        ask(f"{address}/dashboard")
        for study in json.loads(ask(f"{address}/api/studies"))["study_summaries"]:
            trials = json.loads(ask(f"{address}/api/studies/{study['study_id']}?after=0"))["trials"]
            numbers = [trial["number"] for trial in trials]
            assert numbers == list(range(len(numbers))), numbers

    return read


def mlflow_page(address: str) -> Callable[[], None]:
    """What an open page of MLflow asks for: every experiment's runs, and a curve of the latest."""
    api = f"{address}/api/2.0/mlflow"

    def read() -> None:
        ask(address)
        answer = json.loads(ask(f"{api}/experiments/search", {"max_results": 100}))
        ids = [e["experiment_id"] for e in answer.get("experiments", [])]
        body = {"experiment_ids": ids, "max_results": 100}
        for run in json.loads(ask(f"{api}/runs/search", body)).get("runs", [])[:3]:
            run_id = run["info"]["run_id"]
            ask(f"{api}/metrics/get-history?run_id={run_id}&metric_key=train/batch_loss")

    return read


def command_line(
    mtl: Callable[..., subprocess.CompletedProcess], study: str
) -> Callable[[], None]:
    """What one who waits for a study types: `mtl study status`, `best` and `export`."""

    def read() -> None:
        for command in ("status", "best", "export"):
            done = mtl("study", command, study, "--json")
            if done.returncode == 2 and "no study" in done.stderr:
                continue  # it has not begun yet
            told = f"mtl study {command}: {done.returncode} {done.stderr[-300:]}"
            assert done.returncode in (0, 1) and not TROUBLE.search(done.stderr), told
            json.loads(done.stdout)

    return read


@contextmanager
def open_pages(mlflow: str, dashboard: str, pause: float = 0.5) -> Iterator[list[Reader]]:
    """Read both user interfaces while the block runs, two readers each."""
    readers = [
        Reader(page(address), f"{name} {copy}", pause)
        for name, page, address in (
            ("dashboard", dashboard_page, dashboard),
            ("MLflow", mlflow_page, mlflow),
        )
        for copy in range(2)
    ]
    for reader in readers:
        reader.start()
    try:
        yield readers
    finally:
        for reader in readers:
            reader.stop()


def trouble_in(*paths: Path) -> list[str]:
    """Return the lines of files, or of all files in folders, that tell of an error."""
    found = []
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
                found += [f"{file.name}: {line}" for line in lines if TROUBLE.search(line)]
    return found


def counts(readers: list[Reader]) -> Counter[str]:
    """How often each kind of reader has read."""
    return Counter({kind: sum(r.reads for r in readers if r.name.startswith(kind))
                    for kind in {r.name.split()[0] for r in readers}})  # fmt: skip
