"""Studies that are killed, interrupted and run again: nothing lost, nothing twice.

Through the real command line, in few but eventful lives: each start of a study takes seconds.
"""

import signal

import pytest
from study_runs import Study


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
    assert list(study.home.glob("*.db-*")) == []  # both databases were closed


def _assert_equal(one: Study, other: Study) -> None:
    """Two studies hold the same trials and the same points, to the last bit."""
    assert one.params() == other.params()
    assert one.trials() == other.trials()
    assert one.points() == other.points()


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


def test_second_dispatcher_is_refused(study):
    study.start()
    study.wait_for("trial 0 started")
    code, out = Study(study.file.parent, study.home).run()
    assert code == 2, out
    assert f"process {study.process.pid}" in out and "since" in out and out.count("\n") == 1
    study.wait_for("trial 0 complete")
