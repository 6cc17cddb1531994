"""Workers that crash or run out of memory, and a dispatcher that is suspended.

Room: mtl/dispatch, mtl/worker.
"""

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import pytest
import torch

from mtl.dispatch.synchronous import Barrier
from mtl.worker.messages import Evaluated, Failed, Finished, Progress
from mtl.worker.trial import _lacks_memory
from support.invariants import broken
from support.study_runs import Study, wait_until

_CGROUPS = Path("/sys/fs/cgroup")


TRIALS = 3
OPTIONS = ("--jobs", "1", "--trials", str(TRIALS))


@pytest.fixture
def study(tmp_path, reference):
    study = reference.elsewhere(tmp_path / "home").furnished()
    yield study
    study.kill()


@pytest.fixture(scope="module")
def suspended(tmp_path_factory, reference):
    """A study whose dispatcher is suspended, after another was refused: it takes half a minute
    until that one is let in, in which other tests can run."""
    study = reference.elsewhere(tmp_path_factory.mktemp("suspended") / "home").furnished()
    study.start(*OPTIONS)
    study.wait_for("trial 0 epoch 1")
    study.process.send_signal(signal.SIGSTOP)
    code, out = study.elsewhere(study.home).run_here(*OPTIONS)
    assert code == 2 and f"is being run by process {study.process.pid}" in out, out
    assert "since" in out and out.count("\n") == 1
    study.process.send_signal(signal.SIGCONT)
    study.wait_for("trial 0 complete")  # that one did not disturb it
    study.wait_for("trial 1 epoch 1")
    study.process.send_signal(signal.SIGSTOP)
    yield study
    study.process.send_signal(signal.SIGCONT)
    study.kill()


@pytest.fixture
def little_memory():
    """A control group that has next to no memory."""
    version_1 = (_CGROUPS / "memory").is_dir()
    root, limit = (
        (_CGROUPS / "memory", "memory.limit_in_bytes") if version_1 else (_CGROUPS, "memory.max")
    )
    folder = root / f"mtl-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / limit).write_text("2000000")
    except OSError as error:
        pytest.skip(f"no control group with a memory limit can be made here: {error}")
    yield folder
    wait_until(lambda: not (folder / "cgroup.procs").read_text().strip())
    folder.rmdir()


@pytest.mark.usefixtures("suspended")
def test_a_worker_without_memory_and_one_that_crashes_cost_at_most_their_trial(
    study, little_memory
):
    study.start(*OPTIONS)
    study.wait_for("trial 0 epoch 1")
    (little_memory / "cgroup.procs").write_text(str(study.worker_pids()[0]))
    assert "out of memory" in study.wait_for("it goes on from its checkpoint")
    study.wait_for("trial 0 complete")

    # Crashed, and crashed again before there was another checkpoint.
    study.wait_for("trial 1 epoch 1")
    os.kill(study.worker_pids()[0], signal.SIGSEGV)
    study.wait_for("trial 1 resumed")
    wait_until(lambda: study.worker_pids())
    os.kill(study.worker_pids()[0], signal.SIGSEGV)
    code, out = study.end()

    assert code == 1, out
    assert [state for _, state, _ in study.trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert "SIGSEGV, at the same place as before" in study.attribute(1, "reason")
    assert study.tag("trial 1", "mtl.reason") == study.attribute(1, "reason")
    assert study.runs()["trial 1"] == "FAILED"
    assert study.attribute(0, "retries") == 1
    assert study.doubles() == []


def test_who_follows_a_suspended_dispatcher_finishes_its_study(suspended):
    _forget(suspended)
    code, out = suspended.elsewhere(suspended.home).run_here(*OPTIONS)
    assert code == 0, out
    before = suspended.query("optuna.db", "select * from trials")
    suspended.process.send_signal(signal.SIGCONT)
    code, out = suspended.end()
    assert code == 2 and "has taken over" in out, out
    assert suspended.query("optuna.db", "select * from trials") == before
    assert broken(suspended, TRIALS) == []


def _forget(study: Study) -> None:
    """Have the lease seem long past its term, so that it is watched for that at once."""
    with contextlib.closing(sqlite3.connect(study.home / "optuna.db")) as database, database:
        database.execute("update mtl_leases set renewed = 1.0")


def test_a_lack_of_memory_is_told_from_other_faults():
    with pytest.raises(RuntimeError) as torches:
        torch.empty(10**15)
    with pytest.raises(MemoryError) as pythons:
        bytearray(1 << 62)
    assert _lacks_memory(torches.value) and _lacks_memory(pythons.value)
    assert not _lacks_memory(RuntimeError("shapes do not fit"))


# ---- batches ------------------------------------------------------------------------------------


def _finished(number: int) -> Finished:
    return Finished(number, 0.5, {}, {}, 1, 0.1, 1, 1, 1)


def _evaluated(number: int) -> Evaluated:
    return Evaluated(number, 1, 10, {"score": 0.5}, 0.5)


def test_a_round_ends_together_in_the_order_of_its_numbers():
    barrier = Barrier(pruned=False)
    assert not barrier.hold(Progress(1, 1, 10, 0.1, 1.0)) and not barrier.hold(_evaluated(1))
    assert barrier.hold(_finished(2))
    assert barrier.release([1, 2]) == []
    assert barrier.hold(Failed(1, "it raised"))
    assert [event.number for event in barrier.release([1, 2])] == [1, 2]
    assert barrier.release([]) == []


def test_verdicts_of_a_round_wait_for_all_that_still_train():
    barrier = Barrier(pruned=True)
    assert barrier.hold(_evaluated(3)) and barrier.hold(_finished(2))
    assert barrier.release([1, 2, 3]) == []
    assert barrier.hold(_evaluated(1))
    assert [event.number for event in barrier.release([1, 2, 3])] == [1, 3]
    assert not barrier.hold(Failed(1, "out of memory", memory=True))
