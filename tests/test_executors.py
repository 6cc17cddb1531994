"""The contract of executors, run over every one of them.

Room: mtl/executors, mtl/worker.
"""

import os
import signal
import threading
import time

import psutil
import pytest

from minbert import Config
from mtl.executors.factory import EXECUTORS, open_executor
from mtl.executors.local import LocalExecutor
from mtl.executors.resources import Folders, Resources, threads_for
from mtl.storage.home import Home
from mtl.tracking.outbox import Outbox
from mtl.tracking.study_tracker import StudyTracker
from mtl.worker.messages import (
    ENDINGS,
    Died,
    Evaluated,
    Failed,
    Finished,
    Progress,
    Stopped,
    TrialJob,
)
from support import small
from support.clocks import Clock


def _folders() -> Folders:
    home = Home.resolve()
    return Folders(home.path, home.logs, home.mlflow_uri)


SILENCE = 4.0


@pytest.fixture(params=EXECUTORS)
def executor(request, own_workers, tmp_path, monkeypatch):
    """One whose workers do not bear silence for long: starting Ray takes it half a minute."""
    for name, value in Clock(tmp_path / "clock", silence=SILENCE).environment.items():
        monkeypatch.setenv(name, value)
    executor = open_executor(request.param, Resources(jobs=1), _folders())
    yield executor
    executor.close()


@pytest.fixture
def make_job(tmp_path):
    home = Home.resolve()
    tracker = StudyTracker(home)
    keys = {
        "backbone": str(small.backbone(tmp_path / "bert")),
        "data.path": str(small.data(tmp_path / "data")),
        "train.epochs": 2,
        "train.steps_per_epoch": 4,
        "train.batch_size": 4,
    }

    def make(number: int, **more) -> TrialJob:
        config = Config.from_keys(keys | more).to_keys()
        box = Outbox(home.spool / f"s-{number}")
        tracker.open_trial(box, study="s", number=number, params=config, tags={})
        assert tracker.wait_for_run(box)
        tracker.uploader.forget(box)
        return TrialJob(
            study="s", number=number, config=config, outbox=str(box.folder),
            checkpoint_dir=str(home.checkpoint_dir("s", number)), cache_dir=str(home.cache),
            tracking_uri=home.mlflow_uri, artifact_root=str(home.mlflow_artifacts),
        )  # fmt: skip

    yield make
    tracker.close()


def _until(executor, kind, silent=False):
    """Collect events up to the first of a kind; be there for the workers meanwhile, as the
    dispatcher's lease is, unless `silent`."""
    seen = []
    while not (seen and isinstance(seen[-1], ENDINGS)):
        if not silent:
            executor.keep_alive()
        for event in executor.events(0.5):
            seen.append(event)
            if isinstance(event, kind):
                return seen
    raise AssertionError(f"no {kind} came: {seen}")


def test_lives_of_trials(executor, make_job):
    """Advanced to its end; stopped and resumed; pruned; failed; its worker killed; then idle; at
    last with nobody to hear."""
    executor.submit(make_job(0))
    assert executor.free == 0
    first = _until(executor, Evaluated)
    assert all(isinstance(event, Progress) for event in first[:-1])
    assert [event.step for event in first[:-1] if event.evaluating] == [4]
    assert executor.events(0.5) == []  # it waits for a word
    executor.advance(0)
    assert _until(executor, Evaluated)[-1].epoch == 2
    executor.advance(0)
    finished = _until(executor, ENDINGS)[-1]
    assert isinstance(finished, Finished), finished
    assert {picture.rpartition("/")[2] for picture in finished.pictures} == {
        "sst.png", "para.png", "sts.png"
    }  # fmt: skip
    assert executor.free == 1

    job = make_job(1)
    executor.submit(job)
    _until(executor, Evaluated)
    executor.cancel(1)
    assert _until(executor, ENDINGS)[-1] == Stopped(1)
    executor.submit(job)
    # Nobody had answered to the first evaluation: it comes again.
    assert _until(executor, Evaluated)[-1].epoch == 1
    executor.advance(1)
    assert _until(executor, Evaluated)[-1].epoch == 2
    executor.advance(1)
    # Stopped and resumed, it ends where the same training without a break did.
    assert _until(executor, ENDINGS)[-1].score == finished.score

    executor.submit(make_job(2))
    evaluated = _until(executor, Evaluated)[-1]
    executor.cancel(2, prune=True)
    pruned = _until(executor, ENDINGS)[-1]
    assert (pruned.best_epoch, pruned.score) == (1, evaluated.scores["score"])

    executor.submit(make_job(3, **{"data.path": "/nowhere"}))
    failed = _until(executor, ENDINGS)[-1]
    assert isinstance(failed, Failed) and failed.bad_input and "/nowhere" in failed.reason

    executor.cancel(99)  # no such trial: nothing happens
    executor.submit(make_job(4))
    _until(executor, Evaluated)
    _kill_worker(executor)
    assert isinstance(_until(executor, ENDINGS)[-1], Died)
    assert executor.free == 1
    _only_who_hears_nothing_while_awake_is_alone(executor, make_job(7))


def _only_who_hears_nothing_while_awake_is_alone(executor, job):
    """Stopped for longer than a worker bears silence, together with its dispatcher; then left by a
    dispatcher that is stopped alone."""
    executor.submit(job)
    _until(executor, Evaluated)
    (worker,) = _workers(executor)
    worker.suspend()
    time.sleep(1.5 * SILENCE)
    worker.resume()
    time.sleep(0.1)  # its deadline is past, and there is no word yet
    executor.keep_alive()
    executor.advance(7)
    assert _until(executor, Evaluated)[-1].epoch == 2

    ended = _until(executor, ENDINGS, silent=True)[-1]
    assert ended.alone and ended.number == 7, ended
    assert executor.free == 1
    executor.submit(job)  # at once: by then it may still be leaving
    assert _until(executor, Evaluated)[-1].epoch == 2
    executor.advance(7)
    assert isinstance(_until(executor, ENDINGS)[-1], Finished)


def test_a_worker_that_is_stopped_for_hours_holds_up_nobody(make_job):
    """A sign of life every ten seconds fills its pipe in less than one."""
    executor = open_executor("local", Resources(jobs=1), _folders())
    executor.submit(make_job(8))
    _until(executor, Evaluated)
    (worker,) = _workers(executor)
    worker.suspend()
    signs = threading.Thread(target=lambda: [executor.keep_alive() for _ in range(3000)])
    signs.start()
    signs.join(60)
    assert not signs.is_alive()
    worker.resume()
    executor.advance(8)
    assert _until(executor, Evaluated)[-1].epoch == 2
    executor._slots[0].connection.close()  # as one that is just being replaced
    executor.keep_alive()  # by the lease's thread, which goes on
    executor.close()


def test_a_worker_that_dies_between_two_trials_is_replaced(make_job):
    executor = open_executor("local", Resources(jobs=1), _folders())
    executor.submit(make_job(5))
    _until(executor, Evaluated)
    executor.cancel(5, prune=True)
    _until(executor, Finished)
    pid = _kill_worker(executor)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    executor.submit(make_job(6))
    assert not any(isinstance(event, Died) for event in _until(executor, Evaluated))
    executor.close()


def _kill_worker(executor) -> int:
    (worker,) = _workers(executor)
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


def _workers(executor) -> list[psutil.Process]:
    """The processes that train: its own, or those of Ray's that have a trial of ours."""
    if isinstance(executor, LocalExecutor):
        return [psutil.Process(slot.process.pid) for slot in executor._slots.values()]
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::train")]


@pytest.mark.usefixtures("own_workers")
def test_closing_ends_the_workers(make_job):
    executor = open_executor("local", Resources(jobs=2), _folders())
    workers = _workers(executor)
    assert len(workers) == 2
    executor.submit(make_job(0))
    executor.close()
    assert not [worker for worker in workers if worker.is_running()]


@pytest.mark.parametrize(("given", "threads"), [("1", 1), ("64", None), ("", None), ("2,1", 2)])
def test_the_environment_says_how_many_threads_at_most(monkeypatch, given, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_for(1) == (threads or 8) and threads_for(16) == 1
