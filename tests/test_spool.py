"""A real MLflow server that answers 500, hangs, and is gone: no training stops, nothing is lost.

Room: mtl/tracking.
"""

import os
import signal

import pytest

from support.invariants import broken, differences
from support.shaky_server import ShakyServer
from support.study_runs import Study

TRIALS = 3


@pytest.fixture
def server(tmp_path):
    server = ShakyServer(tmp_path / "server")
    yield server
    server._wake()
    server.close()


def test_a_server_that_fails_hangs_and_is_gone_stops_no_training(tmp_path, server, reference):
    study = reference.elsewhere(tmp_path / "home")
    study.mlflow = server.folder
    study.env = {"MLFLOW_TRACKING_URI": server.address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    options = ("--jobs", "1", "--trials", str(TRIALS))

    study.start(*options)
    study.wait_for("trial 0 epoch 1")
    server._fail()
    assert str(study.home / "spool") in study.wait_for("MLflow is away (it answers 500)")
    study.wait_for("complete")
    (worker,) = study.worker_pids()
    os.kill(worker, signal.SIGSTOP)  # or all might be trained before MLflow is asked again
    server._mend()
    study.wait_for("MLflow answers again")
    server._hang()
    os.kill(worker, signal.SIGCONT)
    code, out = study.end()  # though the server hangs for the rest of the study
    assert code == 0, out
    assert [state for _, state, _ in study.trials()] == ["COMPLETE"] * TRIALS
    assert "runs wait for MLflow" in out and "`mtl study sync tiny`" in out

    server._wake()
    server._vanish()
    code, out = study.mtl("sync", "tiny")
    assert code == 1 and "wait: " in out and out.count("\n") == 1, out
    server._appear()
    code, out = study.mtl("sync", "tiny")
    assert code == 0 and "sent" in out, out
    assert study.mtl("sync", "tiny") == (0, "nothing waits for MLflow\n")

    assert broken(study, TRIALS) == []
    assert differences(study, reference) == []


def test_a_server_that_was_never_there_costs_no_trial(tmp_path):
    study = Study(tmp_path / "study", tmp_path / "home", epochs=1)
    study.env = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    code, out = study.run_here("--jobs", "1", "--trials", "1")
    assert code == 0 and "MLflow is away (connection refused)" in out, out
    code, out = study.mtl("best", "tiny")
    assert code == 0 and os.listdir(study.home / "spool"), out
    assert "no run in MLflow yet: mtl study sync tiny" in out
