"""PostgreSQL in the place of files: for Optuna and the leases, and for MLflow's server.

Room: mtl/storage.
"""

import json
import threading
import urllib.error
from contextlib import closing

import optuna
import pytest
import sqlalchemy as sa

from mtl.doctor.checks import guarded
from mtl.doctor.databases import optuna_database
from mtl.doctor.leases import leases
from mtl.doctor.studies import unfinished
from mtl.storage.home import Home
from mtl.storage.lease import Lease
from mtl.storage.optuna import open_engine, open_storage, read_storage
from mtl.storage.urls import file_url
from mtl.tracking.experiments import Experiments
from mtl.tracking.store import connect
from mtl.ui.addresses import Address
from mtl.ui.dashboard import make_dashboard
from support.invariants import broken
from support.readers import ask
from support.shaky_server import ShakyServer
from support.study_runs import Study


@pytest.fixture
def place(postgres_url, monkeypatch) -> Home:
    """A home whose storage is an empty database on the server."""
    monkeypatch.setenv("MTL_STORAGE", postgres_url)
    return Home.resolve()


def test_a_study_and_mlflows_server_are_kept_by_postgresql(tmp_path, home, postgres):
    postgres.start()
    study = Study(tmp_path / "study", home, trials=2, epochs=2, steps=4)
    study.servers = {"optuna.db": postgres.database(), "mlflow.db": postgres.database()}
    with closing(ShakyServer(tmp_path / "mlflow", study.servers["mlflow.db"])) as server:
        study.mlflow = server.folder
        study.env = {
            "MTL_STORAGE": study.servers["optuna.db"],
            "MLFLOW_TRACKING_URI": server.address,
        }
        code, out = study.run_here()
    assert code == 0, out
    assert broken(study, 2) == []
    assert not (home / "optuna.db").exists() and not (home / "mlflow.db").exists()


def test_a_database_without_an_encoding_holds_any_letter(postgres, monkeypatch):
    """As `createdb` makes it where the server's locale is C; its text came as bytes."""
    postgres.start()
    monkeypatch.setenv("MTL_STORAGE", postgres.database("SQL_ASCII"))
    place = Home.resolve()
    with Lease(open_engine(place), "größer · α"):
        made = optuna.create_study(storage=open_storage(place), study_name="größer · α")
        made.set_user_attr("note", "≥ 1")
        (found,) = optuna.get_all_study_summaries(storage=read_storage(place))
    assert (found.study_name, found.user_attrs) == ("größer · α", {"note": "≥ 1"})
    assert [check.state for check in guarded("optuna database", optuna_database, place)] == ["ok"]


def test_artifacts_of_a_store_without_a_server_lie_in_the_home(postgres, home):
    postgres.start()
    root = home / "artifacts/mlflow"
    uri = postgres.database()
    client = connect(uri, root)
    made = Experiments(client, uri, root).id_of("sweep")
    assert client.get_experiment(made).artifact_location == file_url(root / "sweep")


def test_tables_are_made_once_by_many_at_once(place):
    faults = []

    def begin(number: int) -> None:
        try:
            with Lease(open_engine(place), f"study{number}"):
                open_storage(place)
        except Exception as error:  # noqa: BLE001 (of a thread: told to the test)
            faults.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_the_doctor_looks_at_the_server(place, postgres):
    (check,) = guarded("optuna database", optuna_database, place)
    assert check.state == "ok" and "no tables yet" in check.found
    assert "PostgreSQL 1" in check.found and ":***@127.0.0.1" in check.found
    (check,) = leases(place)
    assert "no table yet" in check.found

    study = optuna.create_study(study_name="s", storage=open_storage(place))
    study.ask()
    with Lease(open_engine(place), "s"):
        (check,) = leases(place)
        assert check.state == "ok" and check.found.startswith("s: process ")
    assert [c.found for c in leases(place)] == ["none is held"]
    (check,) = unfinished(place)
    assert check.state == "note" and "1 trial unfinished" in check.found
    (check,) = optuna_database(place)
    assert check.state == "ok" and "schema v" in check.found

    with open_engine(place).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'v2.6.0.a'"))
    (check,) = optuna_database(place)
    assert check.state == "bad"
    assert check.mend == 'optuna storage upgrade --storage "$MTL_STORAGE"'

    postgres.stop()
    (check,) = guarded("optuna database", optuna_database, place)
    assert check.state == "bad" and "heim" not in check.found and "refused" in check.found


def test_the_dashboard_shows_what_the_server_has_and_changes_nothing(place):
    study = optuna.create_study(
        study_name="on a server", storage=open_storage(place), direction="maximize"
    )
    study.add_trial(optuna.trial.create_trial(value=0.5))
    with make_dashboard(place, Address.resolve("127.0.0.1"), 0, False) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/api/studies"
        assert "on a server" in ask(address).decode()
        trials = json.loads(ask(f"{address}/{study._study_id}"))["trials"]
        assert [trial["state"] for trial in trials] == ["Complete"]
        with pytest.raises(urllib.error.HTTPError, match="403"):
            ask(address, {"study_name": "x", "directions": ["maximize"]})
        server.shutdown()
