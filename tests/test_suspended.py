"""Everything is stopped for a while, or a part of it, and the clock is set: no trial is lost.

Room: mtl/dispatch, mtl/worker, mtl/storage.
"""

import json
import os
import signal
import time

import psutil
import pytest

from support.clocks import Clock
from support.invariants import broken, differences
from support.study_runs import wait_until

TRIALS = 3
OPTIONS = ("--jobs", "1", "--trials", str(TRIALS))
SILENCE = 4.0
DAY = 86400.0


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock", SILENCE)


@pytest.fixture
def study(tmp_path, reference, clock):
    study = reference.elsewhere(tmp_path / "home").furnished()
    study.env |= clock.environment
    yield study
    study.kill()


def _stop(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def _wake(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_study_that_is_stopped_and_woken_ends_as_if_nothing_had_been(
    study, reference, clock, here
):
    clock.set(-DAY)
    study.start(*OPTIONS)
    study.wait_for("trial 0 epoch 1")
    dispatcher, (worker,) = study.process.pid, study.worker_pids()

    # By our clock its lease was last renewed a day ago.
    _stop(worker)
    _, status = study.elsewhere(study.home).mtl("status", "tiny", "--json")
    assert f"process {dispatcher} on" in json.loads(status)["dispatcher"]
    done = here(study.home.parent, "gc", "--json", MTL_HOME=str(study.home))
    assert [row["why"] for row in done.json["kept"] if f"process {dispatcher}" in row["why"]]
    code, out = study.elsewhere(study.home).run_here(*OPTIONS)
    assert code == 2 and f"is being run by process {dispatcher}" in out, out

    _stop(dispatcher)  # both, for longer than a worker bears silence
    clock.set(DAY)
    time.sleep(1.5 * SILENCE)
    _wake(worker)
    time.sleep(0.1)  # it finds its deadline past, and no word yet
    _wake(dispatcher)
    out = study.wait_for("trial 1 epoch 1")
    assert study.worker_pids() == [worker] and "goes on" not in out, out

    # The dispatcher alone: its worker leaves. And again, before there is another checkpoint.
    for _ in range(2):
        wait_until(study.worker_pids)
        (worker,) = study.worker_pids()
        _stop(dispatcher)
        wait_until(lambda pid=worker: _gone(pid))
        _wake(dispatcher)
        study.wait_for("has left; the trial goes on")
    code, out = study.end()

    assert code == 0, out
    assert [study.attribute(n, "retries") for n in range(TRIALS)] == [None] * TRIALS
    assert broken(study, TRIALS) == []
    assert differences(study, reference) == []
