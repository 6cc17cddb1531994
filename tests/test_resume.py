"""Studies that are killed, interrupted and run again: nothing lost, nothing twice."""

import os
import signal

import psutil
import pytest
from study_runs import Study, wait_until


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path / "study", tmp_path / "home")


def _assert_whole(study: Study, trials: int = 3) -> None:
    """All trials have ended, under one run each, with no point twice."""
    assert [(number, state) for number, state, _ in study.trials()] == [
        (number, "COMPLETE") for number in range(trials)]
    assert study.runs() == {"study tiny": "FINISHED"} | {
        f"trial {number}": "FINISHED" for number in range(trials)}
    assert len(study.query("mlflow.db", "select 1 from runs")) == trials + 1
    assert study.doubles() == []
    assert list((study.home / "checkpoints").iterdir()) == []


def _assert_equal(one: Study, other: Study) -> None:
    """Two studies hold the same trials and the same points, to the last bit."""
    assert one.params() == other.params()
    assert one.trials() == other.trials()
    assert one.points() == other.points()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Study:
    """The same study, run through without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = Study(folder / "study", folder / "home")
    code, out = study.run()
    assert code == 0, out
    _assert_whole(study)
    return study


def test_killed_dispatchers_are_followed_by_another(study, undisturbed):
    begun = []
    for when in ("trial 0 started", "trial 1 epoch 2", "trial 2 epoch 3"):
        study.start()
        study.wait_for(when)
        study.kill()
        now = study.query("mlflow.db", "select run_uuid from runs order by start_time")
        assert now[: len(begun)] == begun
        begun = now

    code, out = study.run()

    assert code == 0, out
    assert "trial 2 resumed" in out
    assert study.query("mlflow.db", "select run_uuid from runs order by start_time") == begun
    _assert_whole(study)
    _assert_equal(study, undisturbed)


def test_interrupt_checkpoints_and_the_same_command_goes_on(study, undisturbed):
    study.start()
    study.wait_for("trial 1 epoch 1")
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130, out
    assert "Traceback" not in out
    assert study.trials()[1][1] == "RUNNING"
    assert study.runs() == {"study tiny": "KILLED", "trial 0": "FINISHED", "trial 1": "KILLED"}
    assert (study.home / "checkpoints/tiny/1/last.safetensors").is_file()

    code, out = study.run()

    assert code == 0 and "trial 1 resumed" in out, out
    _assert_whole(study)
    assert study.tag("trial 1", "mtl.reason") is None
    _assert_equal(study, undisturbed)


def test_second_signal_stops_at_once_and_loses_nothing(study):
    study.start()
    study.wait_for("trial 1 epoch 1")
    study.process.send_signal(signal.SIGINT)
    study.process.terminate()
    code, out = study.end()
    assert code == 130 and "Traceback" not in out, out
    assert study.trials()[0][1] == "COMPLETE"

    code, out = study.run()

    assert code == 0, out
    _assert_whole(study)


def test_killed_worker_is_replaced_and_its_trial_goes_on(study):
    study.start()
    study.wait_for("trial 0 epoch 1")
    os.kill(study.worker_pids()[0], signal.SIGKILL)
    code, out = study.end()
    assert code == 0, out
    assert "killed by SIGKILL" in out and "trial 0 resumed" in out
    assert study.attribute(0, "retries") == 1
    _assert_whole(study)


def test_trial_whose_workers_die_twice_fails_and_the_study_goes_on(study):
    study.start()
    for line in ("trial 0 epoch 1", "trial 0 epoch"):
        study.wait_for(line)
        os.kill(study.worker_pids()[0], signal.SIGKILL)
        study.wait_for("killed by SIGKILL")
    code, out = study.end()
    assert code == 1, out
    assert [state for _, state, _ in study.trials()] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert study.runs()["trial 0"] == "FAILED"
    assert "SIGKILL" in study.tag("trial 0", "mtl.reason")
    assert "SIGKILL" in study.attribute(0, "reason")


def test_workers_leave_when_their_dispatcher_is_killed(study):
    study.start("--jobs", "2")
    study.wait_for("trial 0 epoch 1")
    workers = study.worker_pids()
    assert len(workers) == 2
    study.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers))


def test_second_dispatcher_is_refused(study):
    study.start()
    study.wait_for("trial 0 started")
    other = Study(study.file.parent, study.home)
    code, out = other.run()
    assert code == 2, out
    assert f"process {study.process.pid}" in out and "since" in out and out.count("\n") == 1
    assert study.end()[0] == 0
    _assert_whole(study)
