"""Both user interfaces, started for real over a small home.

Room: mtl/ui.
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from contextlib import closing

import optuna
import psutil
import pytest

from minbert import InputError
from mtl.common.telemetry import OFF
from mtl.storage.home import Home
from mtl.storage.optuna import open_storage
from mtl.tracking.study_tracker import StudyTracker
from mtl.ui.addresses import Address, bracketed
from mtl.ui.dashboard import make_dashboard
from mtl.ui.login import find_login
from mtl.ui.serve import serve
from support.network_trap import Trap
from support.tracking_samples import new_store

_SERVE = """
import json, sys
from mtl.ui.serve import serve
from mtl.storage.home import Home
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


def test_both_show_what_was_recorded_and_change_nothing_until_a_server_dies(recorded, start):
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
    assert "password" not in served.said
    assert studies(served) == ["sweep"]

    for child in served.family():  # MLflow's server dies
        child.kill()
    out, err = served.process.communicate(timeout=60)
    assert served.process.returncode == 1
    assert err.startswith("The MLflow server does not run: ") and err.count("\n") == 1


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


# ---- elsewhere ----------------------------------------------------------------------------------

PASSWORD = "hush, my dear: 1%"
NATIVE = re.compile(r"\{[^}]*\}|<[^>]*>")  # a variable part of a path


def paths():
    """Every path of MLflow's server: Flask's, FastAPI's own, those of its basic-auth app."""
    from mlflow.server import app as flask_app
    from mlflow.server.auth import routes as auth
    from mlflow.server.fastapi_app import app

    found = {rule.rule for rule in flask_app.url_map.iter_rules()}
    found |= {route.path for route in app.routes if hasattr(route, "methods")}
    found |= {v for k, v in vars(auth).items() if k.isupper() and isinstance(v, str)}
    found |= {"/", "/health", "/version", "/static-files/x", "/favicon.ico", "//", "/nothing"}
    return sorted({NATIVE.sub("x", path) for path in found})


class Caller:
    """Asks a server over one connection."""

    def __init__(self, address):
        self.connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)

    def __call__(self, path, method="GET", login=None, body=None, **headers):
        if login is not None:
            headers["Authorization"] = "Basic " + b64encode(login.encode()).decode()
        data = None if body is None else json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
        self.connection.request(method, path, data, headers)
        answer = self.connection.getresponse()
        text = answer.read().decode(errors="replace")
        return answer.status, answer.headers, text


@pytest.fixture
def shared(recorded, start, home, tmp_path, monkeypatch):
    """Both on all addresses of this machine, with a password, watched for who they connect to."""
    trap = Trap(tmp_path / "trap")
    (tmp_path / "tmp").mkdir()
    for name in (*OFF, *(set(os.environ) - set(trap.environment))):
        monkeypatch.delenv(name, raising=False)
    for name, value in trap.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("MTL_UI_PASSWORD", PASSWORD)
    served = start(host="0.0.0.0", allowed_hosts=["mtl.example"])
    served.trap, served.recorded = trap, recorded
    return served


def test_elsewhere_everything_asks_for_the_password(shared, home, tmp_path):
    assert "Both can be reached from other machines" in shared.said
    assert "travel unencrypted" in shared.said and "TLS" in shared.said
    assert socket.gethostname().lower() in shared.said and "mtl.example" in shared.said
    right = f"mtl:{PASSWORD}"
    mlflow, dashboard = Caller(shared.mlflow), Caller(shared.dashboard)
    every = paths()
    assert len(every) > 300
    for path in every:
        for method in ("GET", "POST"):
            status, headers, text = mlflow(path, method)
            assert (status, "password" in text) == (401, True), (method, path)
    assert headers["WWW-Authenticate"].startswith("Basic realm=")
    for ask in (mlflow, dashboard):
        for wrong in (f"mtl:{PASSWORD} ", "mtl:", f"admin:{PASSWORD}", "admin:password1234"):
            assert ask("/", login=wrong)[0] == 401
        for method in ("HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"):
            assert ask("/api/studies/1", method)[0] == 401
    assert mlflow("/", login=right)[0] == 200

    the_same_in_mlflow(mlflow, right, shared.recorded)
    names_are_checked(mlflow, dashboard, right)
    the_dashboard_reads_only(shared, right)
    the_password_is_nowhere(shared, home, tmp_path)


def the_same_in_mlflow(mlflow, right, run_id):
    """Behind our check MLflow's own application knows the user, and pages and data are there."""
    status, _, text = mlflow("/api/2.0/mlflow/users/get?username=mtl", login=right)
    assert status == 200 and json.loads(text)["user"]["is_admin"]
    page = f"/get-artifact?run_id={run_id}&path=confusion_matrix/sst.html"
    assert mlflow(page, login=right)[::2] == (200, "<b>hello</b>")
    found = mlflow("/ajax-api/2.0/mlflow/experiments/search", "POST", right, {"max_results": 9})
    assert found[0] == 200 and "sweep" in found[2]
    assert found[1]["X-Frame-Options"] == "SAMEORIGIN"
    # Its assistant runs commands, for whoever comes from this machine: behind a proxy, everybody.
    assert mlflow("/ajax-api/3.0/mlflow/assistant/config", login=right)[0] == 403


def names_are_checked(mlflow, dashboard, right):
    """DNS rebinding and foreign pages are refused; this host's names and the proxy's are known."""
    search = ("/ajax-api/2.0/mlflow/experiments/search", "POST", right, {"max_results": 9})
    for ask in (mlflow, dashboard):
        port = ask.connection.port
        for name in (f"localhost:{port}", f"{socket.gethostname()}:{port}".lower(), "mtl.example"):
            assert ask("/", login=right, Host=name)[0] in (200, 302), name
        for name in ("evil.example", f"evil.example:{port}", "mtl.example.evil", "192.0.2.99"):
            assert ask("/", login=right, Host=name)[0] == 403, name
    assert mlflow(*search, Origin="http://evil.example")[0] == 403
    assert mlflow(*search, Origin="https://mtl.example", Host="mtl.example")[0] == 200


def the_dashboard_reads_only(shared, right):
    ask = Caller(shared.dashboard)
    for method, path in (("DELETE", "/api/studies/1"), ("POST", "/api/studies")):
        status, _, text = ask(path, method, right, {"study_name": "x"})
        assert (status, "read-only" in text) == (403, True)
    status, headers, text = ask("/api/studies", login=right)
    assert status == 200 and "sweep" in text
    assert headers["X-Content-Type-Options"] == "nosniff"


def the_password_is_nowhere(shared, home, tmp_path):
    family = [psutil.Process(shared.process.pid), *shared.family()]
    assert not [p for p in family if "hush" in " ".join(p.cmdline())]
    assert not [p for p in shared.family() if "hush" in str(p.environ())]
    (folder,) = (tmp_path / "tmp").glob("mtl-ui-*")
    assert folder.stat().st_mode & 0o077 == 0 and (folder / "users.db").is_file()
    assert shared.trap.seen and shared.trap.outside == set()
    code, out, err = shared.stop()
    assert (code, err) == (0, "")
    assert family[1:] and not [process for process in family if process.is_running()]
    assert not folder.exists(), "MLflow's users went with the server"
    for file in (f for f in tmp_path.rglob("*") if f.is_file()):
        assert b"hush" not in file.read_bytes(), file
    assert "hush" not in shared.said + out


def test_a_password_holds_on_loopback_too(recorded, monkeypatch):
    """The dashboard alone: MLflow is a server elsewhere."""
    monkeypatch.setenv("MTL_UI_PASSWORD", PASSWORD)
    login = find_login(needed=None)
    for host in ("127.0.0.1", "::1"):
        server = make_dashboard(Home.resolve(), Address.resolve(host), 0, False, login)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            ask_it = Caller(f"http://{bracketed(host)}:{server.server_port}")
            assert ask_it("/api/studies")[0] == 401
            assert "sweep" in ask_it("/api/studies", login=f"mtl:{PASSWORD}")[2]
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def test_addresses_know_who_reaches_them():
    loopback = [Address.resolve(h).loopback for h in ("127.0.0.2", "127.1", "::1", "localhost")]
    assert loopback == [True] * 4
    for everywhere in ("0.0.0.0", "::", "0"):
        address = Address.resolve(everywhere)
        assert address.everywhere and not address.loopback
        assert {"localhost", socket.gethostname().lower()} <= set(address.names)
    assert Address.resolve("::").url(5) == "http://[::1]:5"
    assert Address.resolve("0.0.0.0").url(5) == "http://127.0.0.1:5"
    assert Address.resolve("localhost", ["MTL.example"]).outside == ["mtl.example"]


@pytest.mark.parametrize(
    ("host", "others", "words"),
    [
        ("", (), "host is empty"),
        ("nobody.invalid", (), "'nobody.invalid' is not known; give an address of this machine"),
        ("192.0.2.77", (), "192.0.2.77 cannot be listened on"),
        ("127.0.0.1", ("*",), r"allowed host '\*': give a name"),
        ("127.0.0.1", ("http://mtl.example:80",), "without scheme and port"),
        ("127.0.0.1", ("mtl.example",), "mtl.example is for other machines and needs a password"),
        ("0.0.0.0", (), "0.0.0.0 is reachable from other machines and needs a password"),
    ],
)
def test_what_cannot_be_served_is_one_clear_line(host, others, words):
    with pytest.raises(InputError, match=words) as caught:
        serve(Home.resolve(), host=host, allowed_hosts=others)
    assert "\n" not in str(caught.value)
