"""What befalls a study beside kills: it is stopped and woken, its clock is set, its home is moved,
its experiment is deleted in MLflow and restored."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.error
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .chaos import dead
from .readers import ask
from .study_runs import Study, wait_until

SUSPENDED = ("all", "dispatcher", "workers")
DAY = 86400.0


def suspend(study: Study, generator: random.Random) -> str:
    """Stop all of a running study, or a part, for longer than a worker bears silence or not; wake
    it. Return what was done."""
    who, seconds = generator.choice(SUSPENDED), generator.uniform(5, 50)
    dispatcher, workers = [study.process.pid], study.worker_pids()
    pids = {"all": dispatcher + workers, "dispatcher": dispatcher, "workers": workers}[who]
    generator.shuffle(pids)
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(seconds)
    return f"suspended {who} for {seconds:.0f} s"


def draw_clock(generator: random.Random) -> float:
    """Draw what a clock is set to, in seconds off the true time."""
    return generator.choice([-1, 1]) * generator.choice([40.0, 4000.0, DAY, 400 * DAY])


def move_home(study: Study, to: Path, workers: list[int]) -> None:
    """Move the home of a study whose command has ended, once its workers have left, too."""
    wait_until(lambda: all(dead(pid) for pid in workers))
    os.rename(study.home, to)
    study.home = to


def delete_experiment(address: str, name: str, wait: Callable[[float], object]) -> bool:
    """Delete an experiment in MLflow, and restore it after a while, unless that was done meanwhile;
    say whether there was one."""
    api = f"{address}/api/2.0/mlflow/experiments"
    try:
        found = json.loads(ask(f"{api}/get-by-name?experiment_name={name}"))["experiment"]
    except urllib.error.HTTPError:
        return False  # the study has not begun, and there is none
    key = {"experiment_id": found["experiment_id"]}
    with suppress(urllib.error.HTTPError):  # it is deleted, as it is restored, once
        ask(f"{api}/delete", key)
    wait(random.uniform(1, 10))
    with suppress(urllib.error.HTTPError):
        ask(f"{api}/restore", key)
    stage = json.loads(ask(f"{api}/get?experiment_id={key['experiment_id']}"))["experiment"]
    assert stage["lifecycle_stage"] == "active", stage
    return True
