"""mtl doctor: what it finds, what it says to type, and that it leaves everything as it was.

Room: mtl/doctor.
"""

import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import optuna
import pytest
from packaging.requirements import Requirement

from mtl.doctor.checks import guarded
from mtl.doctor.databases import mlflow_database, optuna_database
from mtl.doctor.machine import cores, memory
from mtl.doctor.packages import package
from mtl.doctor.servers import port_free, tracking_server
from mtl.doctor.studies import goes_on, unfinished
from mtl.storage.home import Home
from mtl.storage.lease import Lease
from mtl.storage.optuna import open_engine, open_storage
from mtl.study.load import load_study
from support.commands import sets
from support.tracking_samples import new_store


def by_name(outcome) -> dict[str, dict]:
    """The checks of --json, by name."""
    return {check["name"]: check for check in outcome.json["checks"]}


def recorded(home: Path) -> Home:
    """A home with both databases, and a study with a trial that nobody works on."""
    place = Home.resolve()
    if not (home / "mlflow.db").exists():
        new_store(home / "mlflow.db")
    spec = load_study("lora_sweep")
    study = optuna.create_study(study_name="lora_sweep", storage=open_storage(place))
    study.set_user_attr("settings", spec.settings)
    study.set_user_attr("profile", spec.profile)
    study.ask()
    return place


def contents(folder: Path) -> dict[str, str]:
    """A digest of every file, by its path."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


def test_where_nothing_is_yet_all_is_good_and_nothing_is_made(here, home: Path, tmp_path: Path):
    before = list(tmp_path.iterdir())
    outcome = here(tmp_path, "doctor", "--json")
    checks = by_name(outcome)
    assert outcome.code == 0 and outcome.json["ok"], outcome
    for name in ("python", "mtl", "torch", "optuna", "mlflow", "optuna-dashboard", "home", "disk"):
        assert checks[name]["state"] in ("ok", "note"), checks[name]
    for name in ("cores", "memory", "gpu", "bfloat16", "port 5000", "port 8080", "studies"):
        assert checks[name]["found"], checks[name]
    assert "not there yet" in checks["home"]["found"]
    assert "597,888 parameters" in checks["backbone"]["found"]
    assert checks["data"]["state"] == "ok" and "8,850 rows" in checks["data"]["found"]
    assert list(tmp_path.iterdir()) == before and not home.exists()


def test_a_recorded_home_is_read_and_left_as_it_is(mtl, home: Path):
    # As a killed dispatcher leaves it: a log beside the database that nobody has merged.
    Home.resolve()
    new_store(home / "mlflow.db")
    code = "import test_doctor as t, os; t.recorded(t.Path(os.environ['MTL_HOME'])); os._exit(9)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent)
    assert done.returncode == 9 and (home / "optuna.db-wal").stat().st_size > 0
    before = contents(home)
    outcome = mtl("doctor")
    assert outcome.code == 0, outcome
    lines = {line[6:24].strip(): line for line in outcome.out.splitlines()}
    for name in ("optuna database", "mlflow database"):
        assert lines[name].startswith("ok ") and "sound, schema" in lines[name], outcome.out
        assert "write-ahead log" in lines[name]
    assert "1 trial unfinished, nobody works on it" in lines["studies"]
    assert lines["studies"].endswith("→ mtl study run lora_sweep --profile demo")
    assert "all good; " in outcome.out
    after = contents(home)
    # An index of the log is memory that processes share, not something recorded.
    assert {k: v for k, v in after.items() if not k.endswith("-shm")} == {
        k: v for k, v in before.items() if not k.endswith("-shm")
    }


def test_looking_at_a_home_at_rest_leaves_no_logs_behind(mtl, home: Path):
    recorded(home)
    for name in ("optuna.db", "mlflow.db"):
        with sqlite3.connect(home / name) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    for file in home.glob("*.db-*"):
        file.unlink()
    before = contents(home)
    assert mtl("doctor").code == 0
    assert contents(home) == before


def test_many_faults_are_a_line_each(here, home: Path, tmp_path: Path):
    Home.resolve()
    (home / "optuna.db").write_bytes(b"SQLite format 3\0" + os.urandom(4096))
    (tmp_path / "data").mkdir()
    outcome = here(
        tmp_path,
        "doctor",
        *sets("backbone=no-such-model", f"data.path={tmp_path / 'data'}"),
        MLFLOW_TRACKING_URI="http://me:hunter2@127.0.0.1:9",
    )
    assert outcome.code == 1 and outcome.err == ""
    lines = outcome.out.splitlines()
    assert "hunter2" not in outcome.out and "Traceback" not in outcome.out
    bad = {line[6:24].strip(): line for line in lines if line.startswith("bad ")}
    assert bad.keys() == {"optuna database", "mlflow server", "backbone", "data"}
    assert "optuna.db is damaged" in bad["optuna database"]
    assert f"mv {home / 'optuna.db'}" in bad["optuna database"]
    assert "http://me:***@127.0.0.1:9 cannot be reached" in bad["mlflow server"]
    assert "mtl backbone pull no-such-model" in bad["backbone"]
    assert "ids-sst-train.csv" in bad["data"] and "mtl data check" in bad["data"]
    assert not any("studies" in line[:24] for line in lines), "they cannot be read"
    assert lines[-1] == "4 bad: put that right first"


def test_a_home_that_is_a_file(here, tmp_path: Path):
    (tmp_path / "file").touch()
    outcome = here(tmp_path, "doctor", "--json", MTL_HOME=str(tmp_path / "file" / "home"))
    checks = by_name(outcome)
    assert outcome.code == 1 and not outcome.json["ok"]
    assert checks["home"]["state"] == "bad" and "is not a folder" in checks["home"]["found"]
    assert "MTL_HOME" in checks["home"]["mend"]


def test_a_missing_driver_is_named_as_it_is_installed(monkeypatch):
    monkeypatch.setenv("MTL_STORAGE", "mysql://me@127.0.0.1:9/studies")
    monkeypatch.setitem(sys.modules, "MySQLdb", None)  # as where it is not installed
    (check,) = optuna_database(Home.resolve(create=False))
    assert check.state == "bad" and check.mend == "pip install mysqlclient"


def test_passwords_are_never_printed(here, tmp_path: Path):
    storage = "postgresql://me:s3cr%3Aet@127.0.0.1:9/studies?sslpassword=hidden1"
    for args in (["doctor"], ["doctor", "--json"]):
        outcome = here(tmp_path, *args, MTL_STORAGE=storage)
        assert outcome.code == 1
        said = outcome.out + outcome.err
        assert "me:***@127.0.0.1:9" in said
        assert not [word for word in ("s3cr", "hidden1") if word in said], said


@pytest.mark.parametrize(
    ("variable", "url"),
    [("MTL_STORAGE", "non:sense"), ("MLFLOW_TRACKING_URI", "mysql://"), ("MTL_HOME", "~nobody1")],
)
def test_addresses_that_are_none(here, tmp_path: Path, variable: str, url: str):
    outcome = here(tmp_path, "doctor", **{variable: url})
    assert outcome.code == 1, outcome
    assert "Traceback" not in outcome.out + outcome.err and "fault of mtl" not in outcome.err


def test_a_wrong_key_is_bad_input(here, tmp_path: Path):
    here(tmp_path, "doctor", *sets("backbon=x")).refused("backbone")
    here(tmp_path, "doctor", "--json", *sets("backbone")).refused("KEY=VALUE")


def test_a_device_that_is_not_here(here, tmp_path: Path):
    checks = by_name(here(tmp_path, "doctor", "--json", *sets("train.device=cuda:63")))
    assert checks["gpu"]["state"] != "bad" or "cuda:63" in checks["gpu"]["found"]
    assert any("cuda:63" in check["found"] for check in checks.values())


# What follows runs in this process, check by check.


def test_a_database_with_a_damaged_page(home: Path):
    place, file = Home.resolve(), home / "optuna.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE trials (number INTEGER, note TEXT)")
    connection.executemany("INSERT INTO trials VALUES (?, ?)", [(i, "x" * 900) for i in range(99)])
    connection.commit()
    page = connection.execute("SELECT rootpage FROM sqlite_master").fetchone()[0]
    connection.close()
    raw = bytearray(file.read_bytes())
    raw[(page - 1) * 4096 : (page - 1) * 4096 + 100] = os.urandom(100)
    file.write_bytes(raw)
    (check,) = guarded("optuna database", optuna_database, place)
    assert check.state == "bad" and "is damaged" in check.found


@pytest.mark.parametrize(
    ("look", "file", "version", "words"),
    [
        (mlflow_database, "mlflow.db", "451aebb31d03", "mlflow db upgrade"),
        (mlflow_database, "mlflow.db", "f" * 12, "pip install -U"),
        (optuna_database, "optuna.db", "v2.6.0.a", "upgrade"),
        (optuna_database, "optuna.db", "v9", "pip install -U"),
    ],
)
def test_a_schema_of_another_time(home: Path, look, file: str, version: str, words: str):
    place = recorded(home)
    with sqlite3.connect(home / file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [version])
    (check,) = look(place)
    assert check.state == "bad" and words in check.mend and version in check.found


def test_a_database_without_a_log_is_a_note(home: Path):
    place = Home.resolve()
    sqlite3.connect(home / "mlflow.db").close()
    (home / "mlflow.db").touch()
    (check,) = mlflow_database(place)
    assert check.state == "note" and "no tables yet" in check.found


def test_a_study_that_somebody_works_on_is_left_alone(home: Path):
    place = recorded(home)
    with Lease(open_engine(place), "lora_sweep"):
        (check,) = unfinished(place)
    assert check.state == "ok" and "none left unfinished" in check.found
    (check,) = unfinished(place)
    assert check.state == "note"


def test_the_command_that_goes_on_is_the_one_that_ran():
    spec = load_study("lora_sweep", overrides={"train.lr": 1e-3, "train.mode": "full-model"})
    attributes = {"settings": spec.settings, "profile": spec.profile}
    command = goes_on("lora_sweep@3f2a1b", attributes)
    assert command.startswith("mtl study run lora_sweep --profile demo ")
    assert "--set train.lr=0.001" in command and "--set train.mode=full-model" in command
    assert "mtl study status mine" in goes_on("mine", attributes)
    assert "mtl study status lora_sweep" in goes_on("lora_sweep", {})


def test_a_port_that_is_taken_says_by_what():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (check,) = port_free("--port", port)
    assert check.state == "note" and "does not speak HTTP" in check.found
    assert check.mend == "mtl ui --port 0 takes any free port"
    (check,) = port_free("--port", port)
    assert check.state == "ok"


def test_a_server_that_is_not_mlflow_and_one_that_never_answers():
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (check,) = tracking_server(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert check.state == "bad" and "not as MLflow does" in check.found
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (check,) = tracking_server(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert check.state == "bad" and "cannot be reached" in check.found


def test_packages_out_of_range_are_named_with_what_to_type():
    check = package(Requirement("optuna>=99"))
    assert check.state == "bad" and check.mend == 'pip install "optuna>=99"'
    check = package(Requirement("no-such-package-of-ours>=1"))
    assert check.state == "bad" and "not installed" in check.found
    assert package(Requirement("optuna")).state == "ok"


def test_a_containers_limits_count(tmp_path: Path):
    for name, text in {"cpu.max": "50000 100000", "memory.max": "600000000"}.items():
        (tmp_path / name).write_text(text + "\n")
    (tmp_path / "memory.current").write_text("100000000\n")
    (check,) = cores(tmp_path)
    assert check.state == "note" and "0.5" in check.found and "--jobs 1" in check.mend
    (check,) = memory(tmp_path)
    assert check.state == "bad" and "0.5 GB free" in check.found


def test_a_check_that_breaks_is_a_line():
    def broken():
        raise RuntimeError("boom\nand more")
        yield

    (check,) = guarded("thing", broken)
    assert (check.name, check.state, check.found) == ("thing", "bad", "RuntimeError: boom")
