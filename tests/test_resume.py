"""Studies that are killed, interrupted and run again: nothing lost, nothing twice.

Through the real command line, in few but eventful lives: each start of a study takes seconds.
"""

import os
import signal

import psutil
import pytest
from study_runs import Study, wait_until


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path / "study", tmp_path / "home")
    yield study
    study.kill()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Study:
    """The same study, run through without a break."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = Study(folder / "study", folder / "home")
    code, out = study.run()
    assert code == 0, out
    _assert_whole(study)
    return study


def _assert_whole(study: Study, trials: int = 3) -> None:
    """All trials have ended, under one run each, with no point twice."""
    assert [(number, state) for number, state, _ in study.trials()] == [
        (number, "COMPLETE") for number in range(trials)
    ]
    runs = {f"trial {number}": "FINISHED" for number in range(trials)}
    assert study.runs() == {"study tiny": "FINISHED"} | runs
    assert len(study.run_ids()) == trials + 1
    assert study.doubles() == []
    assert list((study.home / "checkpoints").iterdir()) == []


def _assert_equal(one: Study, other: Study) -> None:
    """Two studies hold the same trials and the same points, to the last bit."""
    assert one.params() == other.params()
    assert one.trials() == other.trials()
    assert one.points() == other.points()


def test_killed_dispatchers_are_followed_by_another(study, undisturbed):
    begun = []
    for when in ("trial 0 started", "trial 1 epoch 2", "trial 2 epoch 3"):
        study.start()
        study.wait_for(when)
        workers = study.worker_pids()
        study.kill()
        assert study.run_ids()[: len(begun)] == begun
        begun = study.run_ids()
        wait_until(lambda pids=workers: not any(psutil.pid_exists(pid) for pid in pids))

    code, out = study.run()

    assert code == 0, out
    assert "trial 2 resumed" in out
    assert study.run_ids() == begun
    _assert_whole(study)
    _assert_equal(study, undisturbed)


def test_interrupts_checkpoint_and_the_same_command_goes_on(study, undisturbed):
    study.start()
    study.wait_for("trial 0 epoch 1")
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130 and "Traceback" not in out, out
    assert [state for _, state, _ in study.trials()] == ["RUNNING"]
    assert study.runs() == {"study tiny": "KILLED", "trial 0": "KILLED"}
    assert (study.home / "checkpoints/tiny/0/last.safetensors").is_file()

    # A request to terminate is an interrupt; a second signal stops at once.
    study.start()
    assert "trial 0 resumed" in study.wait_for("trial 1 epoch 1")
    study.process.send_signal(signal.SIGTERM)
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130 and "Traceback" not in out, out
    assert study.runs() == {"study tiny": "KILLED", "trial 0": "FINISHED", "trial 1": "KILLED"}

    code, out = study.run()

    assert code == 0 and "trial 1 resumed" in out, out
    assert study.tag("trial 1", "mtl.reason") is None
    _assert_whole(study)
    _assert_equal(study, undisturbed)


def test_trial_of_a_dead_worker_is_resumed_once(study):
    study.start()
    study.wait_for("trial 0 epoch 1")
    os.kill(study.worker_pids()[0], signal.SIGKILL)
    study.wait_for("trial 0 resumed")
    for _ in range(2):
        study.wait_for("trial 1 epoch")
        os.kill(study.worker_pids()[0], signal.SIGKILL)
        study.wait_for("killed by SIGKILL")

    code, out = study.end()

    assert code == 1, out
    assert [state for _, state, _ in study.trials()] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.attribute(0, "retries") == 1
    runs = {"trial 0": "FINISHED", "trial 1": "FAILED", "trial 2": "FINISHED"}
    assert study.runs() == {"study tiny": "FINISHED"} | runs
    assert "SIGKILL" in study.tag("trial 1", "mtl.reason")
    assert "SIGKILL" in study.attribute(1, "reason")
    assert study.doubles() == []


def test_second_dispatcher_is_refused(study):
    study.start()
    study.wait_for("trial 0 started")
    code, out = Study(study.file.parent, study.home).run()
    assert code == 2, out
    assert f"process {study.process.pid}" in out and "since" in out and out.count("\n") == 1
    study.wait_for("trial 0 complete")
