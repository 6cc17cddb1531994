"""Many workers and open pages on the same SQLite files: a study of mtl beside the plain script
that one would write instead (`contention_peer.py`: Optuna's `optimize(n_jobs=N)` and its
MLflowCallback), on the same trainings. How to run it: README.md.

What each side keeps of a trial:
    mtl: every parameter, curves, confusion matrices and predictions as tables and pictures, the
        model, digests of the data; checkpoints while it trains. A process for each worker.
    peer: the searched parameters and one value. Threads of one process; no checkpoints.

Both are measured with their servers up and two readers on each of the two user interfaces: `mtl
ui` over mtl's files, `mlflow server` and `optuna-dashboard` over the peer's.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # what both share

from machine import machine  # noqa: E402

from support.invariants import broken  # noqa: E402
from support.readers import Reader, ask, counts, open_pages, served, trouble_in  # noqa: E402
from support.study_runs import Study  # noqa: E402

_BIN = Path(sys.executable).parent
_PEER = Path(__file__).with_name("contention_peer.py")


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mtl-contention-") as folder:
        results = _measure(Path(folder), options)
    _print_table(results, options)
    record = {
        "trials": options.trials,
        "workers": options.workers,
        **machine("optuna", "mlflow", "torch"),
        "results": results,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\n{options.output}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1, help="of both sides, in turn")
    parser.add_argument("-o", "--output", type=Path, default=Path("contention.json"))
    return parser.parse_args()


def _measure(folder: Path, options: argparse.Namespace) -> list[dict]:
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.pop("MTL_STORAGE", None)
    integration = _install_integration(folder / "integration")
    study = Study(folder / "study", folder / "warm", epochs=1, steps=10)
    results = []
    for number in range(options.rounds):
        for side, run in (("mtl", _run_ours), ("peer", _run_theirs)):
            place = folder / f"{side}-{number}"
            place.mkdir()
            print(f"round {number + 1}: {side} ...", file=sys.stderr)
            results.append({"side": side, **run(study.elsewhere(place), options, integration)})
    return results


def _install_integration(folder: Path) -> Path:
    """Put optuna-integration, which mtl does not need, into a folder of its own."""
    # The major version that belongs to the Optuna that is measured.
    wanted = f"optuna-integration=={version('optuna').split('.')[0]}.*"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    done = subprocess.run([*pip, "--no-deps", "--target", str(folder), wanted])
    if done.returncode:
        print("optuna-integration cannot be had; the peer's callback is ours", file=sys.stderr)
    return folder


def _run_ours(study: Study, options: argparse.Namespace, _: Path) -> dict:
    log = study.home / "study.log"
    with served(study.home) as (_, *addresses), open_pages(*addresses) as readers:
        began = time.monotonic()
        arguments = ("--jobs", str(options.workers), "--trials", str(options.trials))
        code = study.start(*arguments, log=log).wait()
        seconds = time.monotonic() - began
    faults = broken(study, options.trials)
    trouble = trouble_in(study.home / "logs", log)
    return _result(study.home, seconds, code, readers, trouble) | {"faults": faults}


def _run_theirs(study: Study, options: argparse.Namespace, integration: Path) -> dict:
    folder, log = study.home, study.home / "peer.log"
    arguments = ["--trials", str(options.trials), "--workers", str(options.workers)]
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(integration)])
    with _their_servers(folder) as addresses, open_pages(*addresses) as readers:
        began = time.monotonic()
        with log.open("wb") as out:
            code = subprocess.run(
                [sys.executable, _PEER, "--study", study.file, "--folder", folder, *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path},
            ).returncode
        seconds = time.monotonic() - began
    trouble = trouble_in(log, folder / "mlflow-server.log", folder / "dashboard.log")
    lines = log.read_text(errors="replace").splitlines()
    told = json.loads(lines[-1]) if code == 0 else {"last line": lines[-1] if lines else ""}
    return _result(folder, seconds, code, readers, trouble) | told


@contextmanager
def _their_servers(folder: Path) -> Iterator[tuple[str, str]]:
    """Run `mlflow server` and `optuna-dashboard` over the peer's files, up and answering."""
    ports = [_free_port(), _free_port()]
    mlflow, dashboard = (f"http://127.0.0.1:{port}" for port in ports)
    stores = [f"sqlite:///{folder / name}" for name in ("mlflow.db", "optuna.db")]
    commands = {
        "mlflow-server": [
            *(_BIN / "mlflow", "server", "--workers", "1", "--port", str(ports[0])),
            *("--backend-store-uri", stores[0]),
            *("--artifacts-destination", folder / "artifacts"),
        ],
        "dashboard": [_BIN / "optuna-dashboard", "--port", str(ports[1]), stores[1]],
    }
    # Its dashboard opens no database without tables.
    create = ["create-study", "--study-name", "peer", "--direction", "maximize"]
    subprocess.run([_BIN / "optuna", *create, "--storage", stores[1]], check=True)
    # As for `mtl ui`: without the processes in which MLflow would judge language models.
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with ExitStack() as running:
        for name, command in commands.items():
            log = running.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                list(map(str, command)), stdout=log, stderr=log, env=env, start_new_session=True
            )
            running.callback(_end_group, process)
            _wait_for(process, mlflow if name == "mlflow-server" else dashboard)
        yield mlflow, dashboard


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(server: subprocess.Popen, address: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            ask(address)
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(0.2)


def _end_group(process: subprocess.Popen) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _result(
    folder: Path, seconds: float, code: int, readers: list[Reader], trouble: list[str]
) -> dict:
    """What is measured of either side: of the whole command, and between the first trial's
    beginning and the last one's end."""
    connection = sqlite3.connect(folder / "optuna.db", timeout=60)
    done, working = connection.execute(
        """select count(*), (julianday(max(datetime_complete)) - julianday(min(datetime_start)))
        * 86400 from trials where state = 'COMPLETE'"""
    ).fetchone()
    connection.close()
    connection = sqlite3.connect(folder / "mlflow.db", timeout=60)
    runs, points = (
        connection.execute(f"select count(*) from {table}").fetchone()[0]
        for table in ("runs", "metrics")
    )
    connection.close()
    faults = [fault for reader in readers for fault in reader.faults]
    return {
        "exit code": code,
        "complete": done,
        "runs": runs,
        "points": points,
        "seconds": round(seconds, 1),
        "trials a minute": round(60 * done / seconds, 1),
        "trials a minute, without start and end": round(60 * done / working, 1) if working else 0,
        "errors": len(trouble) + len(faults),
        "first errors": [*trouble, *faults][:10],
        "page reads": dict(counts(readers)),
    }


_ROWS = (
    "complete",
    "runs",
    "points",
    "trials a minute",
    "trials a minute, without start and end",
    "errors",
)


def _print_table(results: list[dict], options: argparse.Namespace) -> None:
    """Print each figure's mean over the rounds, and ours over theirs."""
    print(f"{options.trials} trials, {options.workers} workers, {options.rounds} rounds\n")
    print(f"{'':<40}{'mtl':>10}{'peer':>10}{'ratio':>8}")
    for row in _ROWS:
        ours, theirs = (
            sum(r[row] for r in results if r["side"] == side) / options.rounds
            for side in ("mtl", "peer")
        )
        ratio = f"{ours / theirs:.2f}" if theirs and row.startswith("trials a minute") else ""
        print(f"{row:<40}{ours:>10.1f}{theirs:>10.1f}{ratio:>8}")
    for result in results:
        wrong = result["first errors"][:3] + result.get("faults", [])[:3]
        for line in [*wrong, *([result["last line"]] if "last line" in result else [])]:
            print(f"{result['side']}: {line[:200]}")
    print(f"the peer's callback: {', '.join({r['callback'] for r in results if 'callback' in r})}")


if __name__ == "__main__":
    sys.exit(main())
