"""Both user interfaces, started for real over a small home."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing

import optuna
import psutil
import pytest
from tracking_samples import new_store

from minbert import InputError
from mtl.dashboard import is_loopback
from mtl.serve import serve
from mtl.stores import Home, open_storage
from mtl.tracking import StudyTracker

_SERVE = """
import json, sys
from mtl.serve import serve
from mtl.stores import Home
sys.exit(serve(Home.resolve(), port=0, dashboard_port=0, **json.loads(sys.argv[1])))
"""


@pytest.fixture
def recorded(home):
    """A home with one study of one trial, and its run with a page."""
    place = Home.resolve()
    new_store(home / "mlflow.db")
    with closing(StudyTracker(place)) as tracker:
        box = tracker.study_box("key")
        tracker.open_study(box, "sweep", "text", {})
        tracker.log_text(box, "<b>hello</b>", "confusion_matrix/sst.html")
        assert tracker.drain([box], lambda: False)
        run_id = box.run.run_id
    study = optuna.create_study(
        storage=open_storage(place), study_name="sweep", direction="maximize"
    )
    study.add_trial(optuna.trial.create_trial(value=0.5))
    return run_id


class Served:
    """`serve` in a process of its own, up and running."""

    def __init__(self, home, **options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, json.dumps(options)],
            env={**os.environ, "MTL_HOME": str(home), "PYTHONWARNINGS": "ignore"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        while "Ctrl-C stops both." not in self.said:
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.said += line
        found = re.findall(r"http://127\.0\.0\.1:\d+", self.said)
        self.mlflow, self.dashboard = found

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def kill(self):
        if self.process.poll() is None:
            self.stop(signal.SIGTERM)


@pytest.fixture
def start(home):
    running = []

    def begin(**options):
        running.append(Served(home, **options))
        return running[-1]

    yield begin
    for served in running:
        served.kill()


def ask(url, method="GET", body=None, **headers):
    """Return status and text of a request."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def studies(served):
    summaries = json.loads(ask(f"{served.dashboard}/api/studies")[1])["study_summaries"]
    return [summary["study_name"] for summary in summaries]


def test_both_show_what_was_recorded_and_change_nothing(recorded, start):
    served = start()
    assert "(read-only)" in served.said and "Nothing is recorded" not in served.said

    body = {"max_results": 10}
    found = ask(f"{served.mlflow}/api/2.0/mlflow/experiments/search", "POST", body)[1]
    assert "sweep" in [e["name"] for e in json.loads(found)["experiments"]]
    page = f"{served.mlflow}/get-artifact?run_id={recorded}&path=confusion_matrix/sst.html"
    assert ask(page) == (200, "<b>hello</b>")
    assert ask(served.mlflow)[0] == 200
    assert ask(served.mlflow, Host="evil.example")[0] == 403

    assert ask(f"{served.dashboard}/dashboard")[0] == 200
    assert ask(f"{served.dashboard}/static/bundle.js")[0] == 200
    assert studies(served) == ["sweep"]
    for method, path in [
        ("DELETE", "/api/studies/1"),
        ("POST", "/api/studies"),
        ("POST", "/api/studies/1/rename"),
        ("PUT", "/api/studies/1/note"),
        ("POST", "/api/trials/1/tell"),
        ("PATCH", "/api/studies/1"),
    ]:
        status, text = ask(f"{served.dashboard}{path}", method, {"study_name": "x"})
        assert (status, "read-only" in json.loads(text)["reason"]) == (403, True)
    assert ask(f"{served.dashboard}/api/studies", Host="evil.example")[0] == 403
    assert studies(served) == ["sweep"]

    family = served.family()
    assert family
    code, _, err = served.stop()
    assert (code, err) == (0, "")
    assert not [process for process in family if process.is_running()]


def test_editing_is_for_those_who_ask_for_it(recorded, start):
    served = start(allow_edit=True)
    assert "can change and delete" in served.said
    url = f"{served.dashboard}/api/studies/1"
    assert ask(url, "DELETE", Origin="http://evil.example")[0] == 403
    assert studies(served) == ["sweep"]
    assert ask(url, "DELETE", Origin=served.dashboard)[0] == 204
    assert studies(served) == []
    family = served.family()
    assert served.stop(signal.SIGTERM)[0] == 0
    assert not [process for process in family if process.is_running()]


def test_an_empty_home_opens_and_says_so(start):
    served = start()
    assert "Nothing is recorded" in served.said
    assert studies(served) == []
    assert ask(served.mlflow)[0] == 200
    family = served.family()
    served.process.kill()  # without a chance to end what it started
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_a_stop_while_it_starts_leaves_nothing(home, recorded):
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, "{}"],
        env={**os.environ, "MTL_HOME": str(home), "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    me = psutil.Process(process.pid)
    while not (family := me.children(recursive=True)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert not [child for child in family if child.is_running()]


def test_a_server_that_dies_is_said(recorded, start):
    served = start()
    for child in served.family():
        child.kill()
    out, err = served.process.communicate(timeout=60)
    assert served.process.returncode == 1
    assert err.startswith("The MLflow server does not run: ") and err.count("\n") == 1


@pytest.mark.parametrize("option", ["port", "dashboard_port"])
def test_a_busy_port_is_one_clear_line(option):
    home = Home.resolve()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"port": 0, "dashboard_port": 0, option: port}
        flag = "--" + option.replace("_", "-")
        with pytest.raises(InputError, match=f"port {port} .* Address already in use.*{flag},"):
            serve(home, **ports)


def test_only_loopback_is_served():
    with pytest.raises(InputError, match="0.0.0.0: only loopback"):
        serve(Home.resolve(), host="0.0.0.0")
    assert [is_loopback(h) for h in ("127.0.0.2", "::1", "localhost", "10.0.0.1", "example")] == [
        *(True, True, True, False, False)
    ]
