"""What a study of many trials costs: each trial, each `ask`, and the commands that read it.

A home is filled with a study whose trials train nothing (`scale_noop.py`), by the product's own
dispatcher: ask, open the run, submit, evaluated, finished, tell. Then the commands are run on it,
each as a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from machine import machine
from rich.console import Console
from rich.table import Table

_MTL = Path(sys.executable).parent / "mtl"
_NAME = "scale"
_MARKS = (100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
_WINDOW = 100  # trials before a mark, over which is measured
_AWAY = "http://127.0.0.1:9"  # nobody listens at the port of "discard"
_STUDY = """
description = "trials that train nothing"
sampler = "{sampler}"
trials = {trials}
seed = 1
[config]
backbone = "demo"
"data.path" = "demo"
"train.mode" = "last-linear-layer"
"train.epochs" = 1
"train.steps_per_epoch" = 2
"train.eval_limit" = 16
[search]
"lora.rank" = [1, 2, 4, 8, 16]
"lora.alpha" = {{ low = 1.0, high = 32.0, log = true }}
"train.lr" = {{ low = 1e-5, high = 1e-2, log = true }}
[[points]]
"lora.rank" = 0
"lora.alpha" = 1.0
"train.lr" = 1e-4
"""


def main() -> int:
    options = _options()
    if options.fill:
        print(json.dumps(_fill(options)))
        return 0
    record = {
        **machine("optuna", "mlflow", "sqlalchemy"),
        "storage": _kind(options.storage),
        "mlflow": options.mlflow,
        "executor": options.executor,
        "jobs": options.jobs,
        "studies": [],
    }
    for sampler in options.samplers:
        with tempfile.TemporaryDirectory(prefix="mtl-scale-") as folder:
            record["studies"].append(_study(sampler, options, Path(options.home or folder)))
        options.output.write_text(json.dumps(record, indent=2) + "\n")
        _print(record["studies"][-1])
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--jobs", type=int, default=2)
    add = parser.add_argument
    add("--executor", choices=["noop", "local", "ray"], default="noop",
        help="noop answers in the dispatcher's process; others have their workers train nothing")
    add("--mlflow", choices=["sqlite", "away"], default="sqlite",
        help="away: no server answers, and what it misses is spooled")
    parser.add_argument("--storage", help="MTL_STORAGE: an SQLAlchemy URL; default an SQLite file")
    parser.add_argument("--no-commands", action="store_true", help="only fill")
    parser.add_argument("--home", help="an empty folder that is kept; default a temporary one")
    parser.add_argument("--fill", help=argparse.SUPPRESS)  # in a process of its own: its memory
    parser.add_argument("-o", "--output", type=Path, default=Path("scale.json"))
    return parser.parse_args()


def _kind(url: str | None) -> str:
    return (url or "sqlite").partition(":")[0]


def _study(sampler: str, options: argparse.Namespace, folder: Path) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{_NAME}.toml"
    file.write_text(_STUDY.format(sampler=sampler, trials=options.trials))
    environment = _environment(options, folder)
    before = os.getloadavg()[0]
    words = [sys.executable, __file__, "--fill", str(file), "--jobs", str(options.jobs)]
    words += ["--executor", options.executor]
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    found |= {"sampler": sampler, "trials": options.trials, "disk": _disk(folder / "home")}
    if not options.no_commands:
        found["commands"] = _commands(file, options, environment)
    return found | {"load": [before, os.getloadavg()[0]]}


def _environment(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    environment = {**os.environ, "MTL_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    for name in ("MLFLOW_TRACKING_URI", "MTL_STORAGE"):
        environment.pop(name, None)
    if options.mlflow == "away":
        environment["MLFLOW_TRACKING_URI"] = _AWAY
    if options.storage:
        environment["MTL_STORAGE"] = options.storage
    if options.executor != "noop":  # workers that train nothing
        hooks = str(Path(__file__).parent / "scale_workers")
        environment["PYTHONPATH"] = os.pathsep.join([hooks, environment.get("PYTHONPATH", "")])
    return environment


# ---- filling a study --------------------------------------------------------------------------


def _fill(options: argparse.Namespace) -> dict:
    """Run the study in this process; return its curve and its memory."""
    from scale_noop import NoopExecutor

    import mtl.dispatch.dispatcher
    import mtl.dispatch.run
    from mtl.dispatch.run import run_study
    from mtl.storage.home import Home
    from mtl.study.load import load_study

    name = options.executor
    if name == "noop":
        mtl.dispatch.run.open_executor = lambda _, *given: NoopExecutor(*given)
    clock = _clock(mtl.dispatch.dispatcher)
    began = time.perf_counter()
    run_study(load_study(options.fill), Home.resolve(), jobs=options.jobs, executor=name,
              view=clock)  # fmt: skip
    return {
        "seconds": time.perf_counter() - began,
        "seconds to close": time.perf_counter() - clock.ends[-1],
        "curve": clock.curve(),
        "dispatcher megabytes": clock.memory,
        "megabytes at most": _megabytes_at_most(),
    }


def _clock(dispatcher):
    """Return a view that takes the time of every trial's end; it times every `ask` too."""
    import psutil

    from mtl.dispatch.view import View

    class Clock(View):
        def __init__(self) -> None:
            self.ends: list[float] = []
            self.busy: list[float] = []  # of the processor: what else runs does not count
            self.asks: list[float] = []
            self.memory: dict[int, float] = {}

        def trial_ended(self, number, state, score, reason) -> None:
            self.ends.append(time.perf_counter())
            self.busy.append(time.process_time())
            if len(self.ends) in (1, *_MARKS):
                self.memory[len(self.ends)] = psutil.Process().memory_info().rss / 1e6

        def message(self, text: str) -> None:
            print(text, file=sys.stderr)

        def curve(self) -> list[dict]:
            marks = [mark for mark in _MARKS if mark < len(self.ends)] + [len(self.ends)]
            return [self._window(mark, min(_WINDOW, mark - 1)) for mark in marks]

        def _window(self, mark: int, size: int) -> dict:
            took, busy = (
                (times[mark - 1] - times[mark - 1 - size]) / size
                for times in (self.ends, self.busy)
            )
            asks = self.asks[max(mark - size, 0) : mark]
            return {
                "trials": mark,
                "trials a second": 1 / took,
                "processor a trial": busy,
                "processor an ask": median(asks),
            }

    clock, ask = Clock(), dispatcher.ask

    def timed(*given):
        began = time.thread_time()
        answer = ask(*given)
        clock.asks.append(time.thread_time() - began)
        return answer

    dispatcher.ask = timed
    return clock


def _megabytes_at_most() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _disk(home: Path) -> dict[str, int]:
    """Bytes of each part of a home."""
    found: dict[str, int] = {}
    for file in home.rglob("*"):
        if file.is_file():
            part = file.relative_to(home).parts[0].removesuffix("-wal").removesuffix("-shm")
            found[part] = found.get(part, 0) + file.stat().st_size
    return found


# ---- the commands -----------------------------------------------------------------------------


def _commands(file: Path, options: argparse.Namespace, environment: dict[str, str]) -> list[dict]:
    page, table = file.with_name("report.html"), file.with_name("export.csv")
    more = options.trials + 1
    rows = [
        ("study list",),
        ("study status", _NAME),
        ("study best", _NAME),
        ("study export", _NAME, "-o", table),
        ("study compare", _NAME),
        ("study report", _NAME, "-o", page),
        ("study run", file, "--trials", options.trials),
        ("study run", file, "--trials", more, "--jobs", 1),
        ("gc", "--dry-run"),
    ]
    if options.mlflow == "away":  # what it reads are artifacts
        rows = [row for row in rows if row[0] != "study compare"]
    made = [_command(row, file.parent, environment) for row in rows]
    sizes = {"study report": page, "study export": table}
    for row in made:
        if row["what"] in sizes:
            row["megabytes written"] = sizes[row["what"]].stat().st_size / 1e6
    return made


def _command(words: tuple, folder: Path, environment: dict[str, str]) -> dict:
    """Run a command; return its seconds, those of the processor, and its memory."""
    line = [str(_MTL), *words[0].split(), *map(str, words[1:])]
    began = time.perf_counter()
    process = subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    name = words[0]
    if name == "study run":
        name += ", nothing to do" if "--jobs" not in words else ", one more trial"
    return {
        "what": name,
        "seconds": time.perf_counter() - began,
        "processor": usage.ru_utime + usage.ru_stime,
        "megabytes": usage.ru_maxrss / 1e3,
        "exit code": process.returncode,
        "said": said[-300:],
    }


def _print(found: dict) -> None:
    load = " and ".join(f"{number:.1f}" for number in found["load"])
    title = f"{found['sampler']}, {found['trials']:,} trials; load {load}"
    table = Table("trials", "trials a second", "processor a trial", "of it ask", "memory",
                  title=title)  # fmt: skip
    for row in found["curve"]:
        memory = found["dispatcher megabytes"].get(str(row["trials"]))
        table.add_row(
            f"{row['trials']:,}", f"{row['trials a second']:.1f}",
            f"{1e3 * row['processor a trial']:.1f} ms",
            f"{1e3 * row['processor an ask']:.1f} ms", f"{memory:.0f} MB" if memory else "",
        )  # fmt: skip
    console = Console(width=100)
    console.print(table)
    table = Table("command", "seconds", "processor", "memory", "exit code")
    table.add_row("end of the study", f"{found['seconds to close']:.1f}", "", "", "")
    for row in found.get("commands", ()):
        table.add_row(
            row["what"], f"{row['seconds']:.1f}", f"{row['processor']:.1f}",
            f"{row['megabytes']:.0f} MB", str(row["exit code"]),
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
