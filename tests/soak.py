"""A study that has a bad night: `python tests/soak.py --minutes 20`.

For some minutes a study runs against a real MLflow server while its workers and dispatchers are
killed, stopped and woken, Ctrl-C is pressed, the clock is set, the home is moved between two lives,
the server is stopped, suspended and made to answer 500, the experiment is deleted and restored, and
others read what is recorded. Then it is left in peace until it ends, and compared with a study that
nobody disturbed. Exit code 1, and the home is kept, if anything was lost, doubled or different.

It is seeded: the same seed draws the same faults. When they strike is up to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from support.chaos import Killer, draw_kills
from support.clocks import Clock
from support.invariants import broken, differences, read_trials
from support.mishaps import delete_experiment, draw_clock, move_home, suspend
from support.readers import (
    MTL,
    Reader,
    command_line,
    dashboard_page,
    mlflow_page,
    served,
    trouble_in,
)
from support.shaky_server import ShakyServer
from support.study_runs import Study

FAULTS = ("kills", "interrupts", "suspensions", "clocks", "moves", "outages", "deletions")
_WEIGHTS = {"kills": 8, "interrupts": 2, "suspensions": 2, "clocks": 2, "moves": 1}
_MORE = 10  # trials that are added when the study ends too early
_LEAVING = 60.0  # seconds after which an interrupted command is said to hang
_ATTEMPTS = 20  # to end the study, once it is left in peace
_ENOUGH = 20  # faults of the study after which there is no point in going on


def main() -> int:
    options = _options()
    home = Path(options.home or tempfile.mkdtemp(prefix="mtl-soak-")).absolute()
    home.mkdir(parents=True, exist_ok=True)
    soak = Soak(home, options)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    # A shell has what it starts in the background ignore Ctrl-C, and so would the study then.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"seed {options.seed}, log {soak.log_file}", flush=True)
    soak.run()
    print(soak.figures())
    if soak.faults:
        for fault in soak.faults[:50]:
            print(f"BROKEN: {fault}")
        print(f"{len(soak.faults)} faults; everything is kept in {home}")
        return 1
    print("nothing lost, nothing twice, nothing different")
    if options.home is None:
        shutil.rmtree(home)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--faults", default=",".join(FAULTS), help="some of the default")
    parser.add_argument(
        "--once", action="store_true", help="kill no trial's worker twice, checkpoint or not"
    )
    parser.add_argument("--sample", type=int, default=40, help="trials of the undisturbed study")
    parser.add_argument("--home", help="a new folder for everything; kept")
    options = parser.parse_args()
    options.faults = options.faults.split(",")
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"--faults: {', '.join(unknown)} is none of {', '.join(FAULTS)}")
    return options


class Soak:
    """One soak.

    Attributes:
        faults: what was found broken, a line each.
        events: how often each thing was done to the study, or became of it.
    """

    def __init__(self, home: Path, options: argparse.Namespace) -> None:
        self._options = options
        self._began = time.monotonic()
        self._end = self._began + 60 * options.minutes
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.faults: list[str] = []
        self.events: Counter[str] = Counter()
        self.log_file = home / "soak.log"
        self.trials = 12
        self._output = home / "study.log"
        self._folder = home
        self.study = Study(home / "study", home / "home", epochs=6, steps=20)
        self._random = random.Random(options.seed)
        self._killer = Killer(
            self.study,
            random.Random(self._random.random()),
            self._output,
            once=options.once,
            ended=lambda: time.monotonic() > self._end,
        )
        self._readers: list[Reader] = []
        self._watching = ExitStack()
        self._deleting = False
        self._refused_since = 0.0
        self._checked = 0

    def log(self, event: str) -> None:
        """Write one line on an event."""
        with self._lock, self.log_file.open("a") as log:
            log.write(f"{time.monotonic() - self._began:8.1f} {event}\n")

    def fault(self, text: str) -> None:
        self.log(f"BROKEN {text}")
        self.faults.append(text)

    def run(self) -> None:
        """Disturb the study, let it end, and look at what it has become."""
        with ExitStack() as stack:
            self._server = ShakyServer(self._folder / "server")
            stack.callback(self._server.close)
            self.study.mlflow = self._server.folder
            self._clock = Clock(self._folder / "clock")
            self.study.env = {"MLFLOW_TRACKING_URI": self._server.address, "OMP_NUM_THREADS": "1"}
            self.study.env |= self._clock.environment
            stack.callback(self.study.kill)
            stack.callback(self._watching.close)
            self._watch()
            outages = threading.Thread(target=self._trouble_server, daemon=True)
            if self._server_kinds():
                outages.start()
            self._disturb()
            self._over.set()
            if outages.is_alive():
                outages.join()
            self._let_end()
            self._watching.close()
            self._check()

    # ---- what is done to it ---------------------------------------------------------------------

    def _disturb(self) -> None:
        kills = iter(draw_kills(self._random, 10_000))
        acts = {
            "kills": lambda: self._kill(next(kills)),
            "interrupts": self._interrupt,
            "suspensions": self._suspend,
            "clocks": self._set_clock,
            "moves": self._move,
        }
        kinds = [kind for kind in acts if kind in self._options.faults]
        while time.monotonic() < self._end and len(self.faults) < _ENOUGH:
            if not self._running():
                continue
            if not kinds:
                time.sleep(1)
            else:
                acts[self._random.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]]()

    def _kill(self, kill) -> None:
        done = self._killer.strike(kill)
        if done is not None:
            self.events[f"killed {done.victim}"] += 1
            self.events[f"killed at {done.moment}"] += 1
            self.log(f"killed {done.victim} at {done.moment}")

    def _interrupt(self) -> None:
        """Ctrl-C, or SIGTERM, and sometimes a second one."""
        if not self._killer.wait("training"):
            return
        process, number = self.study.process, self._random.choice([signal.SIGINT, signal.SIGTERM])
        twice = self._random.random() < 0.3
        began = time.monotonic()
        process.send_signal(number)
        if twice:
            time.sleep(self._random.uniform(0, 0.5))
            process.send_signal(signal.SIGINT)
        try:
            process.wait(_LEAVING)
        except subprocess.TimeoutExpired:
            self.fault(f"{number.name} did not end the study in {_LEAVING:.0f} s")
            self.study.kill()
        self.events["interrupts"] += 1
        twice_told = ", twice" if twice else ""
        self.log(f"{number.name}{twice_told}: left after {time.monotonic() - began:.1f} s")

    def _suspend(self) -> None:
        if self._killer.wait("training"):
            done = suspend(self.study, self._random)
            self.events[done.partition(" for ")[0]] += 1
            self.log(done)

    def _set_clock(self) -> None:
        """Set the clock that the study's processes go by; nobody else's."""
        if self._killer.wait("training"):
            self._clock.set(seconds := draw_clock(self._random))
            self.events["clock set"] += 1
            self.log(f"clock set {seconds:+.0f} s")

    def _move(self) -> None:
        """Move the home between two lives; whoever looks on does so where it is then."""
        workers = self.study.worker_pids()
        self._interrupt()
        if self.study.process.poll() is None:
            return
        self._watching.close()
        self.events["home moved"] += 1
        home = self._folder / f"home-{self.events['home moved']}"
        move_home(self.study, home, workers)
        self.log(f"home moved to {home}")
        self._watch()

    def _server_kinds(self) -> list[str]:
        kinds = {"outages": ["stop", "hang", "500"], "deletions": ["delete"]}
        return [kind for fault in self._options.faults for kind in kinds.get(fault, [])]

    def _delete(self) -> None:
        self._deleting = True
        try:
            if delete_experiment(self._server.address, "tiny", self._over.wait):
                self.events["experiment deleted"] += 1
                self.log("experiment deleted and restored")
        finally:
            self._deleting = False

    def _trouble_server(self) -> None:
        generator = random.Random(self._options.seed + 1)
        kinds: list[str] = []
        while not self._over.wait(generator.uniform(10, 40)):
            if not kinds:
                kinds = self._server_kinds()
                generator.shuffle(kinds)
            kind, seconds = kinds.pop(), generator.uniform(5, 40)
            if kind == "delete":
                self._delete()
                continue
            self.events[f"server {kind}"] += 1
            self.log(f"server {kind} for {seconds:.0f} s")
            try:
                self._server.trouble(kind, seconds, self._over.wait)
            except AssertionError as error:  # it did not come back: the soak cannot go on
                self.fault(str(error))
                return
            self.log("server is back")

    # ---- what becomes of it ---------------------------------------------------------------------

    def _running(self) -> bool:
        """Whether the study's command runs; if it does not, note how it ended and start it."""
        process = self.study.process
        if process is not None and process.poll() is None:
            return True
        if process is not None:
            self._ended(process.returncode)
        self.events["starts"] += 1
        self._killer.start("--jobs", str(self._options.jobs), "--trials", str(self.trials))
        return False

    def _ended(self, code: int) -> None:
        self.log(f"the study's command ended with {code}")
        if code == 0:
            self.trials += _MORE
            self.log(f"it has {self.trials} trials now")
        elif code == 2 and "outages" in self._options.faults:
            # Nothing can begin without the server, where mtl says so in one line.
            self.events["starts refused"] += 1
            if not self._server.troubled:
                self._refused_since = self._refused_since or time.monotonic()
                if time.monotonic() - self._refused_since > 60:
                    self.fault(f"refused although the server is there: {self._last_words()}")
            time.sleep(1)
            return
        elif code not in (-signal.SIGKILL, 130):
            self.fault(f"the study's command ended with {code}: {self._last_words()}")
        self._refused_since = 0.0

    def _last_words(self) -> str:
        return " / ".join(self._output.read_text(errors="replace").splitlines()[-3:])

    def _let_end(self) -> None:
        """Run the study to its end, and send what MLflow was not yet told."""
        self.log("in peace")
        options = ("--jobs", str(self._options.jobs), "--trials", str(self.trials))
        if self.study.process is not None:
            self.study.process.wait()
        for _ in range(_ATTEMPTS):
            self.events["starts"] += 1
            code = self.study.start(*options, log=self._output).wait()
            if code == 0:
                break
            self.log(f"the study's command ended with {code}: {self._last_words()}")
        else:
            self.fault(f"the study does not end: {self._last_words()}")
        if "outages" in self._options.faults:
            done = self._mtl("study", "sync", "tiny")
            if done.returncode:
                self.fault(f"mtl study sync ended with {done.returncode}: {done.stderr.strip()}")

    def _check(self) -> None:
        self.faults += broken(self.study, self.trials)
        self.faults += trouble_in(self.study.home / "logs", self._output)
        self.faults += [fault for reader in self._readers for fault in reader.faults[:5]]
        undisturbed = self.study.elsewhere(self._folder / "undisturbed")
        undisturbed.env = {"OMP_NUM_THREADS": "1"}
        sample = min(self._options.sample, self.trials)
        self.log(f"undisturbed, {sample} trials")
        code, out = undisturbed.run("--jobs", str(self._options.jobs), "--trials", str(sample))
        if code:
            self.fault(f"the undisturbed study ended with {code}: {out}")
        self.faults += differences(self.study, undisturbed)
        self._checked = sum(len(trial.points) for trial in read_trials(self.study))
        self.events["trials compared"] = sample

    # ---- those who look on ----------------------------------------------------------------------

    def _watch(self) -> None:
        url = self._server.address
        _, _, dashboard = self._watching.enter_context(
            served(self.study.home, MLFLOW_TRACKING_URI=url)
        )
        away = lambda: self._server.troubled or self._deleting  # noqa: E731
        readers = [
            Reader(dashboard_page(dashboard), "dashboard", 1.0),
            Reader(mlflow_page(url), "MLflow", 1.0, excused=away),
            Reader(command_line(self._mtl, "tiny"), "mtl study", 10.0),
        ]
        self._readers += readers
        for reader in readers:
            reader.start()
            self._watching.callback(reader.stop)

    def _mtl(self, *words: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, **self.study.environment()}
        return subprocess.run([MTL, *words], env=environment, capture_output=True, text=True)

    def _reads(self) -> Counter[str]:
        reads: Counter[str] = Counter()
        for reader in self._readers:
            reads[reader.name] += reader.reads
        return reads

    # ---- figures --------------------------------------------------------------------------------

    def figures(self) -> str:
        """What was done, and what was found, a line each."""
        doubles = len(self.study.doubles())
        figures = {
            "minutes": round((time.monotonic() - self._began) / 60, 1),
            **dict(sorted(self.events.items())),
            **{f"reads of {name}": reads for name, reads in self._reads().items()},
            "reads while the server was away": sum(r.refused for r in self._readers),
            "trials": self.trials,
            "points checked": self._checked,
            "points twice": doubles,
            "checkpoints torn": self._killer.torn,
            "faults found": len(self.faults),
        }
        (self._folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
        return "\n".join(f"{name:<34}{value:>10}" for name, value in figures.items())


if __name__ == "__main__":
    sys.exit(main())
