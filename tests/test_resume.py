"""Studies that are killed, interrupted and run again: nothing lost, nothing twice.

Through the real command line, in few but eventful lives: each start of a study takes seconds.

Room: mtl/dispatch.
"""

import signal

import pytest

from support.invariants import broken, differences

TRIALS = 3
OPTIONS = ("--jobs", "1", "--trials", str(TRIALS))


@pytest.fixture
def study(tmp_path, reference):
    study = reference.elsewhere(tmp_path / "home").furnished()
    yield study
    study.kill()


def test_interrupts_checkpoint_and_the_same_command_goes_on(study, reference):
    study.start(*OPTIONS)
    study.wait_for("trial 0 epoch 1")
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130 and "Traceback" not in out, out
    assert [state for _, state, _ in study.trials()] == ["RUNNING"]
    assert study.runs() == {"study tiny": "KILLED", "trial 0": "KILLED"}
    assert (study.home / "checkpoints/tiny/0/last.safetensors").is_file()

    # A request to terminate is an interrupt; a second signal stops at once.
    study.start(*OPTIONS)
    assert "trial 0 resumed" in study.wait_for("trial 1 epoch 1")
    study.process.send_signal(signal.SIGTERM)
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130 and "Traceback" not in out, out
    assert study.runs() == {"study tiny": "KILLED", "trial 0": "FINISHED", "trial 1": "KILLED"}

    code, out = study.run(*OPTIONS)

    assert code == 0 and "trial 1 resumed" in out, out
    assert study.tag("trial 1", "mtl.reason") is None
    assert broken(study, TRIALS) == []
    assert differences(study, reference) == []
    assert list(study.home.glob("*.db-*")) == []  # both databases were closed

