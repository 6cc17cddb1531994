"""Servers that mislead: whose files go where nobody gets, that let nobody in, that are no MLflow.

Room: mtl/tracking.
"""

import json
from contextlib import closing, contextmanager

import pytest
from sqlalchemy import event

from minbert import InputError
from mtl.storage.home import Home
from mtl.tracking.asking import ask_server
from mtl.tracking.limits import cut, cut_name
from mtl.tracking.outbox import Outbox
from mtl.tracking.sender import Sender
from mtl.tracking.store import client_of, load_mlflow
from mtl.tracking.uploader import Uploader
from support.commands import mtl_here, sets
from support.loopback import Replies, serving
from support.shaky_server import ShakyServer
from support.study_runs import Study
from support.tracking_samples import new_store


@pytest.fixture(scope="module")
def own_disk(tmp_path_factory):
    """A server that has its clients write to a folder of its own disk, which is not here."""
    folder = tmp_path_factory.mktemp("server")
    place = folder / "a-file" / "its-own-disk"
    options = ("--no-serve-artifacts", "--default-artifact-root", str(place))
    with closing(ShakyServer(folder, artifacts=options)) as server:
        place.parent.touch()  # no folder can be made there, by root neither
        server.place = place
        yield server


def home_of(address: str) -> Home:
    home = Home.resolve()
    return Home(home.path, address, home.storage_url)


def test_files_that_would_go_to_the_server_s_own_disk_are_refused_at_once(own_disk, tmp_path):
    study = Study(tmp_path / "study", tmp_path / "home")
    study.env = {"MLFLOW_TRACKING_URI": own_disk.address}
    wanted = ("its-own-disk", "without --no-serve-artifacts", "--artifacts-destination")
    code, out = study.run_here("--jobs", "1")
    assert code == 2 and out.count("\n") == 1 and all(word in out for word in wanted), out
    env = {"MTL_HOME": str(study.home), **study.env}
    tiny = sets("train.epochs=1", "train.steps_per_epoch=1")
    mtl_here(tmp_path, "train", *tiny, **env).refused(*wanted)
    assert "no study" in study.mtl("status", "tiny")[1]
    assert not own_disk.place.exists()
    load_mlflow()
    names = [each.name for each in client_of(own_disk.address).search_experiments()]
    assert names == ["Default"]  # the name is free for when the server is put right
    doctor = mtl_here(tmp_path, "doctor", "--json", **env)
    (found,) = [c for c in doctor.json["checks"] if c["name"] == "mlflow artifacts"]
    assert found["state"] == "bad" and wanted[0] in found["found"] and wanted[1] in found["mend"]


def test_a_folder_that_is_here_too_is_no_obstacle(own_disk):
    own_disk.place.parent.unlink()
    own_disk.place.mkdir(parents=True)
    try:
        ask_server(home_of(own_disk.address), "shared folder")
    finally:
        own_disk.place.rmdir()
        own_disk.place.parent.rmdir()
        own_disk.place.parent.touch()


@pytest.mark.parametrize(
    ("location", "wanted"),
    [
        ("s3://bucket/folder", "pip install boto3"),
        ("mlflow-artifacts:/7", "without --no-serve-artifacts"),
        ("{place}/3", "under another name (--as)"),
    ],
)
def test_an_experiment_whose_place_cannot_be_reached(own_disk, location, wanted):
    """It was made earlier, and keeps its place whatever the server does now."""
    load_mlflow()
    name = f"at {location}"
    location = location.format(place=own_disk.place)
    client_of(own_disk.address).create_experiment(name, location)
    with pytest.raises(InputError) as caught:
        ask_server(home_of(own_disk.address), name)
    assert wanted in str(caught.value) and "\n" not in str(caught.value)


# ---- what is no absence -------------------------------------------------------------------------


@contextmanager
def answering(status: int, body: str, kind: str = "text/html"):
    """Another program that answers at an address, or a proxy before a server."""

    class Answer(Replies):
        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = answer

    with serving(Answer) as address:
        yield address


DENIED = json.dumps({"error_code": "PERMISSION_DENIED", "message": "Permission denied"})


@pytest.mark.parametrize(
    ("status", "body", "wanted"),
    [
        (401, "You are not authenticated", "MLFLOW_TRACKING_PASSWORD"),
        (403, "Invalid Host header - possible DNS rebinding attack detected", "--allowed-hosts"),
        (403, DENIED, "Permission denied"),
        (404, "<html>nginx</html>", "not as MLflow does"),
        (200, "<html>Jupyter</html>", "not as MLflow does"),
        (302, "", "not as MLflow does"),
    ],
)
def test_what_somebody_must_put_right_is_refused_before_anything_runs(home, status, body, wanted):
    with answering(status, body) as address, pytest.raises(InputError, match=wanted) as caught:
        ask_server(home_of(address), "x")
    assert "away" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_what_passes_by_itself_is_not_refused(home, status):
    with answering(status, "later") as address:
        ask_server(home_of(address), "x")


def test_tls_where_there_is_none_is_said(home):
    with answering(200, "OK") as address, pytest.raises(InputError, match="TLS"):
        ask_server(home_of(address.replace("http", "https")), "x")


def test_a_store_that_cannot_be_written_is_no_absence(home):
    """And `mtl doctor` and `mtl study status` say why runs wait, from another process."""
    uri = new_store(home / "mlflow.db")
    box = Outbox(home / "spool/key-0")
    box.append("create", experiment="x", name="n", tags={}, find={})
    with closing(Uploader(Sender(uri, home / "artifacts/mlflow"))) as uploader:
        uploader._sender._store.client.create_experiment("x")
        engine = uploader._sender._store.client._tracking_client.store.engine
        read_only = lambda connection, _: connection.execute("PRAGMA query_only=ON")  # noqa: E731
        event.listen(engine, "connect", read_only)
        engine.dispose()
        uploader.watch(box)
        assert not uploader.wait([box])
        assert uploader.hindrance is not None and not uploader.hindrance.passes
        assert "cannot be written" in uploader.hindrance.reason
        doctor = mtl_here(home, "doctor", "--json", MTL_HOME=str(home))
        (found,) = [c for c in doctor.json["checks"] if c["name"] == "waiting runs"]
        assert found["state"] == "note" and "1 run waits for MLflow: " in found["found"]
        assert "cannot be written" in found["found"]
        event.remove(engine, "connect", read_only)
        engine.dispose()
        assert uploader.wait([box]) or _later(uploader, box)
    assert box.reason is None


def _later(uploader, box) -> bool:
    """It is tried again after a pause."""
    while uploader.hindrance is not None:
        uploader._changed.acquire()
        uploader._changed.wait(0.1)
        uploader._changed.release()
    return uploader.wait([box])


def test_long_names_are_cut_so_that_one_sees_it():
    assert cut("x" * 250, 250) == "x" * 250
    assert cut("x" * 251, 250) == "x" * 249 + "…"
    one, other = cut_name("n" * 300 + "1"), cut_name("n" * 300 + "2")
    assert len(one) == len(other) == 256 and one != other and "…" in one
