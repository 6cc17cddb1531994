"""Home and databases: where they lie, reading without writing, faults in one line.

Room: mtl/storage.
"""

import os

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from minbert import InputError
from mtl.storage.home import Home
from mtl.storage.optuna import open_storage, read_storage
from mtl.trials.recorded import open_recorded, recorded_studies


def test_home_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_HOME", str(tmp_path / "a b"))
    home = Home.resolve()
    assert home.path == tmp_path / "a b"
    assert home.storage_url.endswith("/a b/optuna.db")
    for folder in ("artifacts/mlflow", "artifacts/optuna", "checkpoints", "cache", "spool", "logs"):
        assert (home.path / folder).is_dir()
    monkeypatch.setenv("MTL_STORAGE", "postgresql://me:secret@host/studies")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    home = Home.resolve()
    assert home.storage_url == "postgresql://me:secret@host/studies"
    assert home.mlflow_uri == "http://127.0.0.1:5000"


def test_home_is_not_made_for_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_HOME", str(tmp_path / "none"))
    home = Home.resolve(create=False)
    assert recorded_studies(home) == []
    assert not home.path.exists()


def test_home_that_is_a_file_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTL_HOME", str(tmp_path / "file"))
    with pytest.raises(InputError, match="MTL_HOME"):
        Home.resolve()


def test_storage_waits_for_other_writers_and_readers_never_wait():
    storage = open_storage(Home.resolve())
    with storage._backend.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


def test_what_is_recorded_is_read_while_it_is_written(storage):
    home = Home.resolve()
    study = optuna.create_study(
        study_name="s", storage=open_storage(home), direction="maximize", load_if_exists=True
    )
    study.tell(study.ask(), 0.5)
    running = study.ask()
    (recorded,) = recorded_studies(home)
    assert (recorded.name, recorded.trials) == ("s", 2)
    assert recorded.states == {"complete": 1, "pruned": 0, "failed": 0, "running": 1}
    assert recorded.best["number"] == 0 and recorded.best["score"] == 0.5
    study.tell(running, 0.7)
    assert recorded_studies(home)[0].best["number"] == 1


def test_reading_cannot_write(storage):
    home = Home.resolve()
    optuna.create_study(study_name="s", storage=open_storage(home))
    study = open_recorded(home, "s")
    with pytest.raises(StorageInternalError):
        study.set_user_attr("a", 1)
    assert open_recorded(home, "s").user_attrs == {}


def test_unknown_recorded_study_names_the_nearest():
    home = Home.resolve()
    optuna.create_study(study_name="sweep", storage=open_storage(home))
    with pytest.raises(InputError, match="did you mean sweep"):
        open_recorded(home, "swep")


def test_damaged_database_is_one_clear_line():
    home = Home.resolve()
    (home.path / "optuna.db").write_bytes(b"SQLite format 3\0" + os.urandom(4096))
    for opening in (open_storage, read_storage):
        with pytest.raises(InputError, match=r"optuna\.db is damaged") as refused:
            opening(home)
        assert "\n" not in str(refused.value)


def test_addresses_that_lead_nowhere_are_one_clear_line(monkeypatch):
    monkeypatch.setenv("MTL_STORAGE", "nonsense")
    with pytest.raises(InputError, match="MTL_STORAGE"):
        open_storage(Home.resolve())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", ["names no file", "sqlite:////folder/name.db"]),
        ("sqlite:///", ["names no file"]),
        ("sqlite:///:memory:", ["names no file"]),
        ("sqlite:///file:x?mode=memory&uri=true", ["names no file"]),
        ("http://x", ["http:// is no database", "postgresql+psycopg://"]),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ["study", "list"], ["study", "status", "x"], ["study", "run", "lora_sweep"],
        ["gc", "--dry-run"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_database_that_processes_cannot_share_is_refused(here, tmp_path, command, url, words):
    Home.resolve()
    here(tmp_path, *command, MTL_STORAGE=url).refused("MTL_STORAGE", *words)


def test_mlflow_s_store_in_memory_is_refused(here, tmp_path):
    outcome = here(tmp_path, "train", MLFLOW_TRACKING_URI="sqlite://")
    outcome.refused("MLFLOW_TRACKING_URI", "names no file")


def test_the_folder_of_a_database_elsewhere_is_made_or_named(tmp_path, monkeypatch):
    file = tmp_path / "new/folder/o.db"
    monkeypatch.setenv("MTL_STORAGE", f"sqlite:///{file}")
    open_storage(Home.resolve())
    assert file.is_file()
    (tmp_path / "file").touch()
    monkeypatch.setenv("MTL_STORAGE", f"sqlite:///{tmp_path}/file/deep/o.db")
    with pytest.raises(InputError, match=r"MTL_STORAGE: the folder \S+/file/deep cannot be made"):
        open_storage(Home.resolve())
    (tmp_path / "other/o.db").mkdir(parents=True)
    monkeypatch.setenv("MTL_STORAGE", f"sqlite:///{tmp_path}/other/o.db")
    with pytest.raises(InputError, match="other/o.db"):
        open_storage(Home.resolve())
