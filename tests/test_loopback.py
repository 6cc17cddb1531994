"""A proxy in the environment, a forwarded port, and a server that does not start.

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
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from mtl.common.loopback import is_loopback, opener
from mtl.common.proxies import leave_out_proxies
from mtl.storage.home import Home
from mtl.ui.readiness import last_words
from support.commands import start_mtl
from support.loopback import Replies, serving
from support.tracking_samples import new_store

HERE = ("http://127.0.0.1:5000", "http://localhost:5000", "http://[::1]:5000", "http://127.0.0.7:1")
OUTSIDE = ("http://mlflow.example:5000", "http://10.1.2.3:5000", "http://localhost.evil.example")
PROXY = "http://192.0.2.9:3128"
SPELLINGS = [
    {"http_proxy": PROXY},
    {"HTTP_PROXY": PROXY, "NO_PROXY": "corp.example"},
    {"all_proxy": PROXY, "no_proxy": ""},
    {"ALL_PROXY": PROXY, "no_proxy": "corp.example, localhost", "NO_PROXY": "other.example"},
    {"http_proxy": PROXY, "no_proxy": "", "NO_PROXY": "corp.example"},
    {"http_proxy": "nonsense"},
]
_ASKS = """
import sys
from pathlib import Path
from mtl.doctor.servers import tracking_server
from mtl.tracking.store import connect
states = {check.state for check in tracking_server(sys.argv[1])}
print(states, [each.name for each in connect(sys.argv[1], Path.cwd()).search_experiments()])
"""


class Proxy(Replies):
    """A proxy that knows no server, and notes what it was asked for."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.reply(b"no such server", 502)

    do_POST = do_CONNECT = do_GET


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name in ("no_proxy", "NO_PROXY"):  # so that what the function sets is undone, too
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.parametrize("given", SPELLINGS, ids=lambda given: "+".join(given))
def test_no_proxy_stands_before_loopback(no_proxies, given):
    for name, value in given.items():
        no_proxies.setenv(name, value)
    leave_out_proxies()
    leave_out_proxies()  # as a command and the processes that it starts do
    for url in HERE:
        assert requests.utils.get_environ_proxies(url) == {}, url
    for url in OUTSIDE:
        assert requests.utils.get_environ_proxies(url).keys() & {"http", "all"}, url
    names = os.environ["no_proxy"].split(",")
    assert len(names) == len({*names}) and os.environ["NO_PROXY"] == os.environ["no_proxy"]
    if "corp.example" in "".join(given.values()):
        assert requests.utils.get_environ_proxies("http://corp.example") == {}


@pytest.mark.parametrize("given", [{}, {"no_proxy": "*", "http_proxy": PROXY}, {"NO_PROXY": "a"}])
def test_an_environment_that_needs_nothing_is_left_alone(no_proxies, given):
    for name, value in given.items():
        no_proxies.setenv(name, value)
    before = dict(os.environ)
    leave_out_proxies()
    assert dict(os.environ) == before


def test_loopback_is_known_by_its_names_and_numbers():
    for host in ("localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.1", "::1"):
        assert is_loopback(host), host
    assert is_loopback("::ffff:127.0.0.1")
    for host in ("", "example.org", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        assert not is_loopback(host), host
    assert not is_loopback("::ffff:10.0.0.1") and not is_loopback("2001:db8::1")


def test_a_probe_asks_loopback_directly_and_others_through_the_proxy(no_proxies):
    class Here(Replies):
        def do_GET(self) -> None:
            self.reply(b"here")

    Proxy.asked.clear()
    with serving(Proxy) as proxy, serving(Here) as server:
        no_proxies.setenv("http_proxy", proxy)
        assert opener(server).open(server, timeout=60).read() == b"here"
        with pytest.raises(urllib.request.HTTPError, match="502"):
            opener(OUTSIDE[0]).open(OUTSIDE[0], timeout=60)
    assert Proxy.asked == [f"{OUTSIDE[0]}/"] or Proxy.asked == [OUTSIDE[0]]


# ---- mtl ui, where everybody has a proxy --------------------------------------------------------


class Pages:
    """`mtl ui`, up and running, and what asks its two servers."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.process, said = process, ""
        while "Ctrl-C stops both." not in said:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        self.mlflow, self.dashboard = re.findall(r"http://(127\.0\.0\.1:\d+)", said)[:2]

    def status(self, server: str, path: str, body: object = None, **headers: str) -> int:
        """Ask as a browser does that has found the server under the name in `Host`."""
        with closing(http.client.HTTPConnection(server, timeout=60)) as connection:
            method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            return connection.getresponse().status


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    home = tmp_path_factory.mktemp("ui")
    new_store(home / "mlflow.db")
    Proxy.asked.clear()
    with serving(Proxy) as proxy:
        names = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")
        env = dict.fromkeys(names, proxy) | {"no_proxy": "", "NO_PROXY": "corp.example"}
        command = ("ui", "--port", "0", "--dashboard-port", "0")
        process = start_mtl(home, *command, MTL_HOME=str(home), **env)
        try:
            found = Pages(process)
            found.environment = {**os.environ, **env}
            yield found
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_both_pages_come_up_and_are_asked_directly(pages: Pages):
    assert pages.status(pages.mlflow, "/health") == 200
    command = [sys.executable, "-c", _ASKS, f"http://{pages.mlflow}"]
    done = subprocess.run(command, env=pages.environment, capture_output=True, text=True)
    assert done.stdout == "{'ok'} ['Default']\n", done.stderr
    assert Proxy.asked == []


@pytest.mark.parametrize("port", ["", ":15000", ":80"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]"])
def test_a_forwarded_port_is_let_in(pages: Pages, name: str, port: str):
    host = f"{name}{port}"
    search = ("/ajax-api/2.0/mlflow/experiments/search", {"max_results": 1})
    assert pages.status(pages.mlflow, "/", Host=host) == 200
    assert pages.status(pages.mlflow, *search, Host=host, Origin=f"http://{host}") == 200
    assert pages.status(pages.dashboard, "/api/studies", Host=host) == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:15000", "localhost.evil.example:15000", "1:15000"),
        *("127.0.0.1.evil.example", "evil.localhost.example:5000", "192.0.2.99:15000", ":15000"),
    ],
)
def test_no_other_name_is(pages: Pages, host: str):
    assert pages.status(pages.mlflow, "/", Host=host) == 403
    assert pages.status(pages.dashboard, "/api/studies", Host=host) == 403


# ---- why a server did not start -----------------------------------------------------------------

_LEAKED = """/lib/resource_tracker.py:254: UserWarning: There appear to be 1 leaked objects
  warnings.warn("""
_TRACEBACK = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
    raise ValueError
sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) no such table: runs
[SQL: SELECT 1]
(Background on this error at: https://sqlalche.me/e/20/e3q8)"""


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        (f"ERROR:    [Errno 98] address already in use\n{_LEAKED}", 1, "ERROR: [Errno 98] address"),
        (f"2026/11/27 19:45:00 ERROR mlflow.server: no store\n{_LEAKED}", 1, "mlflow.server: no"),
        (f"{_TRACEBACK}\n{_LEAKED}", 1, "(sqlite3.OperationalError) no such table: runs"),
        (f"Killed while busy\n{_LEAKED}", 1, "Killed while busy"),
        (_LEAKED, -9, "it was ended by SIGKILL"),
        (_LEAKED, 3, "it ended with 3"),
        (_LEAKED, None, "it wrote nothing"),
    ],
)
def test_its_last_error_is_why(log: str, code: int | None, words: str):
    said = last_words(log, code)
    assert words in said and "warn" not in said.lower() and "\n" not in said


def test_a_port_that_is_taken_meanwhile_is_why(home):
    place = Home.resolve()
    new_store(home / "mlflow.db")
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        given = {
            "store": place.mlflow_uri,
            "own": True,
            "artifacts": str(place.mlflow_artifacts),
            "host": "127.0.0.1",
            "port": taken.getsockname()[1],
            "login": None,
        }
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mtl.ui.mlflow_server"],
            input=json.dumps(given),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert done.returncode > 0
    assert "address already in use" in last_words(done.stdout, done.returncode)
