"""Tidying a home: what goes, and above all what stays.

Room: mtl/housekeeping.
"""

import os
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from minbert.data.datasets import load_corpus
from mtl.storage.home import Home
from mtl.storage.lease import Lease
from mtl.storage.optuna import open_engine, open_storage
from mtl.tracking.outbox import Outbox
from mtl.tracking.study_tracker import StudyTracker
from support import small
from support.commands import Outcome
from support.study_runs import Study, wait_until
from support.tracking_samples import new_store

LONG_AGO = 90 * 86400.0


def age(path: Path, seconds: float = LONG_AGO) -> Path:
    """Make a file, or a folder with all that is in it, so many seconds old."""
    when = time.time() - seconds
    inside = [p for p in path.rglob("*") if not p.is_symlink()] if path.is_dir() else []
    for each in (*inside, path):
        os.utime(each, (when, when))
    return path


def put(folder: Path, name: str = "last.safetensors", size: int = 1000) -> Path:
    """Write a file into a folder; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x" * size)
    return folder


def listing(folder: Path) -> list[tuple]:
    """Everything about a folder's content that a change would change, but for the databases'
    shared memory, which every reader writes."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.name.endswith("-shm"):
            stat = path.lstat()
            found.append((str(path), stat.st_mode, stat.st_size, stat.st_mtime_ns))
    return found


def recorded(
    home: Home, key: str, study: str, number: int | None, state: str, parent: str | None = None
) -> str:
    """Record a run, ended or not, in MLflow, a trial's with a note; return its id."""
    with closing(StudyTracker(home)) as tracker:
        box = Outbox(home.spool / key)
        if key == "key":
            tracker.open_study(box, study, "what it is", {})
        else:
            tracker.open_trial(
                box, study=study, number=number, params={}, tags={},
                parent=parent and Outbox(home.spool / "key"),
            )  # fmt: skip
        if number is not None:
            tracker.log_text(box, "text", "note.txt")
        if state != "running":
            tracker.end(box, state)
        assert tracker.drain([box], lambda: False)
    return box.run.run_id


@dataclass
class Tidied:
    """A home with a study of three trials (complete, failed, running), and their runs."""

    home: Home
    here: object
    tmp: Path
    study: optuna.Study
    runs: dict[int, str]
    parent: str

    def gc(self, *options: str, code: int = 0, **env: str) -> dict:
        outcome: Outcome = self.here(self.tmp, "gc", "--json", *options, **env)
        assert outcome.code == code, outcome
        return outcome.json

    def found(self, *options: str, **env: str) -> set[str]:
        """What is removed, or with --dry-run would be, relative to the home."""
        rows = self.gc(*options, **env)["found"]
        return {str(Path(row["path"]).relative_to(self.home.path)) for row in rows}

    def why(self, path: str, **options: str) -> str:
        """Why something was left alone."""
        kept = self.gc("--dry-run", **options)["kept"]
        return next(row["why"] for row in kept if row["path"] == str(self.home.path / path))

    def training(self, status: str) -> str:
        """Record a training outside any study that has a checkpoint; return its run's id."""
        run = recorded(self.home, f"train-{status}", "train", None, status)
        put(self.home.checkpoints / "train" / run, "config.json")
        return run


@pytest.fixture
def tidied(home: Path, here, tmp_path: Path) -> Tidied:
    place = Home.resolve()
    new_store(home / "mlflow.db")
    study = optuna.create_study(study_name="sweep", storage=open_storage(place))
    parent = recorded(place, "key", "sweep", None, "running")
    study.set_user_attr("parent_run_id", parent)
    runs = {}
    for state in (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL, None):
        trial = study.ask()
        ended = "running" if state is None else state.name.lower().replace("fail", "failed")
        run = recorded(place, f"key-{trial.number}", "sweep", trial.number, ended, parent)
        trial.set_user_attr("mlflow_run_id", run)
        runs[trial.number] = run
        if state is not None:
            study.tell(trial, 0.5 if state.name == "COMPLETE" else None, state=state)
    return Tidied(place, here, tmp_path, study, runs, parent)


def test_checkpoints_of_ended_trials_go_and_of_running_ones_stay(tidied):
    sweep = tidied.home.checkpoints / "sweep"
    for name in ("0", "0.work", "1", "2", "2.work"):
        put(sweep / name)
    for number in range(3):
        (sweep / f"{number}.lock").touch()
    age(put(sweep / "7"))  # of a trial that does not exist
    put(sweep / "8")  # perhaps of one that is just being made
    put(sweep / "notes")  # not ours
    before = listing(tidied.home.path)
    planned = tidied.gc("--dry-run")
    assert listing(tidied.home.path) == before
    assert {row["what"] for row in planned["found"]} == {
        "trial 0 (complete) of sweep", "trial 1 (fail) of sweep",
        "trial 7, which does not exist, of sweep",
    }  # fmt: skip
    assert planned["bytes"] == 4000 and planned["dry_run"]
    done = tidied.gc()
    assert done["found"] == planned["found"] and not done["dry_run"]
    left = {path.name for path in sweep.iterdir()}
    assert left == {"2", "2.work", "2.lock", "8", "notes"}
    assert tidied.gc()["found"] == []


def test_checkpoints_of_studies_that_are_gone_go_when_nobody_writes_them(tidied):
    gone = put(tidied.home.checkpoints / "gone" / "0").parent
    assert tidied.found() == set()
    age(gone)
    with Lease(open_engine(tidied.home), "gone"):
        assert tidied.found() == set()
    assert tidied.found() == {"checkpoints/gone/0"}
    assert not gone.exists()


def test_nothing_of_a_study_that_a_dispatcher_has_is_touched(tidied):
    put(tidied.home.checkpoints / "sweep" / "0")
    MlflowClient(tidied.home.mlflow_uri).delete_run(tidied.runs[0])
    before = listing(tidied.home.checkpoints)
    with Lease(open_engine(tidied.home), "sweep"):
        assert tidied.found() == set()
        assert f"process {os.getpid()}" in tidied.why("checkpoints/sweep")
    assert listing(tidied.home.checkpoints) == before
    assert len(tidied.found("--dry-run")) == 2


def test_a_lock_that_a_worker_holds_keeps_its_checkpoint(tidied):
    folder = put(tidied.home.checkpoints / "sweep" / "0")
    with FileLock(f"{folder}.lock"):
        assert tidied.found() == set()
        assert "lock" in tidied.why("checkpoints/sweep/0")
    assert tidied.found() == {"checkpoints/sweep/0"}


def test_trainings_that_can_be_resumed_stay(tidied):
    runs = {status: tidied.training(status) for status in ("complete", "failed", "killed")}
    running = tidied.training("running")
    nowhere = put(tidied.home.checkpoints / "train" / ("f" * 32)).name
    folder = tidied.home.checkpoints / "train"
    assert tidied.found() == set()  # each may just have ended, and tidies up behind itself
    age(folder, 2 * 86400.0)
    expected = {f"checkpoints/train/{name}" for name in (runs["complete"], nowhere)}
    with FileLock(folder / f"{runs['complete']}.lock"):  # whatever clock and MLflow say
        assert tidied.found("--dry-run") == expected - {f"checkpoints/train/{runs['complete']}"}
    assert tidied.found() == expected
    age(folder)
    assert tidied.found() == {f"checkpoints/train/{runs['failed']}"}
    assert {path.name for path in folder.iterdir()} == {runs["killed"], running}


def test_artifacts_of_deleted_runs_go_with_their_records(tidied):
    client = MlflowClient(tidied.home.mlflow_uri)
    resumable = tidied.training("killed")
    for run in (*tidied.runs.values(), tidied.parent, resumable):
        client.delete_run(run)
    lost = age(put(tidied.home.mlflow_artifacts / "sweep" / ("e" * 32) / "artifacts"))
    age(lost.parent)
    expected = {f"artifacts/mlflow/sweep/{tidied.runs[n]}" for n in (0, 1)}
    assert tidied.found("--dry-run") == expected  # older than the store: another one may know it
    with closing(sqlite3.connect(tidied.home.path / "mlflow.db")) as store, store:
        store.execute("UPDATE runs SET start_time = 1")
    expected.add(f"artifacts/mlflow/sweep/{'e' * 32}")
    assert tidied.found() == expected
    left = {path.name for path in (tidied.home.mlflow_artifacts / "sweep").iterdir()}
    assert left == {tidied.runs[2]}
    known = client.search_runs(_experiments(client), run_view_type=2)
    assert {run.info.run_id for run in known} == {tidied.runs[2], tidied.parent, resumable}
    assert "goes on with" in tidied.why(f"artifacts/mlflow/sweep/{tidied.runs[2]}")


def _experiments(client) -> list[str]:
    return [experiment.experiment_id for experiment in client.search_experiments()]


def test_a_deleted_run_of_which_a_model_is_registered_stays(tidied):
    client = MlflowClient(tidied.home.mlflow_uri)
    run = tidied.runs[0]
    client.create_registered_model("sweep")
    client.create_model_version("sweep", client.get_run(run).info.artifact_uri, run)
    client.delete_run(run)
    assert tidied.found() == set()
    assert "registered" in tidied.why(f"artifacts/mlflow/sweep/{run}")


def test_where_mlflow_is_a_server_its_runs_are_the_server_s(tidied):
    MlflowClient(tidied.home.mlflow_uri).delete_run(tidied.runs[0])
    server = {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"}
    assert tidied.found(**server) == set()
    assert "`mlflow gc` there" in tidied.why("artifacts/mlflow", **server)
    assert "secret" not in tidied.why("artifacts/mlflow", **server)


def test_without_its_databases_a_home_keeps_everything(tidied):
    age(put(tidied.home.checkpoints / "sweep" / "0"))
    picture = age(put(tidied.home.optuna_artifacts, PICTURE)) / PICTURE
    age(picture)
    for name in ("optuna.db", "mlflow.db"):
        for file in tidied.home.path.glob(f"{name}*"):
            file.rename(tidied.tmp / file.name)
    age(tidied.home.mlflow_artifacts)
    assert tidied.found() == set()
    for place in ("checkpoints/sweep", "artifacts/optuna", "artifacts/mlflow"):
        assert tidied.why(place)
    # Studies of another storage share the home: its own file is asked, too.
    for name in ("optuna.db", "mlflow.db"):
        for file in tidied.tmp.glob(f"{name}*"):
            file.rename(tidied.home.path / file.name)
    age(put(tidied.home.checkpoints / "sweep" / "2"))
    other = f"sqlite:///{tidied.tmp}/other.db"
    optuna.create_study(study_name="elsewhere", storage=other)
    assert tidied.found(MTL_STORAGE=other) == {
        "checkpoints/sweep/0", f"artifacts/optuna/{PICTURE}"
    }  # fmt: skip
    assert (tidied.home.checkpoints / "sweep" / "2").is_dir()


PICTURE = "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_pictures_that_hang_nowhere_go(tidied):
    from optuna.artifacts import FileSystemArtifactStore, upload_artifact

    store = FileSystemArtifactStore(str(tidied.home.optuna_artifacts))
    (tidied.tmp / "a.png").write_bytes(b"png")
    others = optuna.create_study(study_name="deleted", storage=tidied.study._storage)
    ids = [
        upload_artifact(
            artifact_store=store, file_path=str(tidied.tmp / "a.png"), study_or_trial=owner,
            storage=tidied.study._storage,
        )
        for owner in (tidied.study, tidied.study.get_trials()[2], others)
    ]  # fmt: skip
    age(tidied.home.optuna_artifacts)
    assert tidied.found() == set()
    optuna.delete_study(study_name="deleted", storage=tidied.study._storage)
    assert tidied.found() == {f"artifacts/optuna/{ids[2]}"}


def test_tokenised_data_stays_while_its_files_give_it(tidied):
    cache = tidied.home.cache
    backbone = small.backbone(tidied.tmp / "bert")
    data = small.data(tidied.tmp / "data")
    config = {"data.path": str(data), "backbone": str(backbone)}
    tidied.study.set_user_attr("settings", {"config": config, "search": {}})
    load_corpus(str(data), str(backbone), cache)
    other = small.data(tidied.tmp / "other", seed=1)
    load_corpus(str(other), str(backbone), cache)
    for name in ("demo-corpus-0123456789ab", "demo-corpus-x.part", "tokens/.rows-abc"):
        put(cache / name)
    put(cache / "mine")
    assert tidied.found() == set()  # all of it is young
    age(cache)
    with Lease(open_engine(tidied.home), "another"):
        assert tidied.found("--dry-run") == {"cache/demo-corpus-x.part", "cache/tokens/.rows-abc"}
    run = tidied.training("running")
    age(tidied.home.checkpoints)
    with FileLock(tidied.home.checkpoints / "train" / f"{run}.lock"):
        assert tidied.found("--dry-run") == {"cache/demo-corpus-x.part", "cache/tokens/.rows-abc"}
    found = tidied.found()
    assert {"cache/demo-corpus-0123456789ab", "cache/demo-corpus-x.part"} < found
    tokens = {name for name in found if name.startswith("cache/tokens/") and ".rows" not in name}
    assert len(tokens) == 6 and len(found) == 9
    assert sum(path.is_dir() for path in (cache / "tokens").iterdir()) == 6
    assert len(list((cache / "tokens").glob("*.lock"))) == 6
    before = listing(cache)
    load_corpus(str(data), str(backbone), cache)
    assert listing(cache) == before, "what the recorded data gives was kept"
    small.data(data, seed=2)  # the files change: what they gave is nobody's
    assert len(tidied.found()) == 6


def test_old_tracebacks_go(tidied):
    for name in ("error-1.log", "error-2.log", "worker-0.log"):
        put(tidied.home.logs, name)
    age(tidied.home.logs / "error-1.log")
    age(tidied.home.logs / "worker-0.log")
    assert tidied.found() == {"logs/error-1.log"}


def test_links_are_named_and_neither_followed_nor_removed(tidied):
    outside = put(tidied.tmp / "outside" / "0").parent
    inner = put(tidied.home.checkpoints / "sweep" / "0")
    (inner / "link").symlink_to(outside)
    (tidied.home.checkpoints / "gone").symlink_to(outside)
    shutil.rmtree(tidied.home.optuna_artifacts)
    tidied.home.optuna_artifacts.symlink_to(outside)
    put(outside, PICTURE)
    age(outside)
    (tidied.home.path / "spool" / "0").mkdir()
    assert tidied.found() == {"checkpoints/sweep/0"}
    assert "link" in tidied.why("checkpoints/gone")
    assert "link" in tidied.why("artifacts/optuna")
    assert {path.name for path in outside.iterdir()} == {"0", PICTURE}
    assert (outside / "0" / "last.safetensors").exists()


@pytest.mark.parametrize("path", [".", "..", "spool/x", "checkpoints/../../x"])
def test_what_is_no_part_of_the_home_cannot_be_removed(tmp_path, path):
    from mtl.housekeeping.removal import Removal

    with pytest.raises(ValueError, match=r"not to be removed|subpath"):
        Removal(tmp_path / "home", True).drop("draft", "a fault", tmp_path / "home" / path)


def test_what_cannot_be_removed_is_said(tidied, monkeypatch):
    folder = put(tidied.home.checkpoints / "sweep" / "0")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", refuse)  # tests may run as root, whom nothing stops
    (failed,) = tidied.gc(code=1)["failed"]
    assert failed == {"path": str(folder), "why": "cannot be removed: Permission denied"}


def test_what_a_person_sees(tidied):
    assert "nothing to remove" in tidied.here(tidied.tmp, "gc").out
    put(tidied.home.checkpoints / "sweep" / "0", size=1_500_000)
    shown = tidied.here(tidied.tmp, "gc", "--dry-run").out
    assert "checkpoints/sweep/0" in shown and "1.5 MB" in shown and "would be removed" in shown
    shown = tidied.here(tidied.tmp, "gc").out
    assert shown.endswith("removed 1 thing, 1.5 MB\n")


def test_a_home_that_is_not_there_is_not_made(here, tmp_path):
    outcome = here(tmp_path, "gc", MTL_HOME=str(tmp_path / "none"))
    assert outcome.code == 0 and "nothing to remove" in outcome.out
    assert not (tmp_path / "none").exists()


def test_a_damaged_database_is_said_in_one_line(tidied):
    put(tidied.home.checkpoints / "sweep" / "0")
    (tidied.home.path / "optuna.db").write_bytes(b"no database" * 1000)
    for extra in tidied.home.path.glob("optuna.db-*"):
        extra.unlink()
    tidied.here(tidied.tmp, "gc").refused("optuna.db")
    assert (tidied.home.checkpoints / "sweep" / "0").is_dir()


def test_a_study_goes_on_while_its_home_is_tidied(home, here, tmp_path):
    """A real dispatcher and worker; what they leave when they end is what the rules speak of."""
    study = Study(tmp_path / "study", home, trials=1, epochs=400).furnished()
    study.start()
    try:
        study.wait_for("epoch 2")
        checkpoint = home / "checkpoints" / "tiny" / "0"
        wait_until(lambda: any(checkpoint.glob("*.safetensors")))
        put(home / "checkpoints" / "tiny" / "5")
        for path in (home / "cache", home / "checkpoints" / "tiny" / "5"):
            age(path)
        outcome = here(tmp_path, "gc", "--json")
        assert outcome.json["found"] == []
        assert [row["path"] for row in outcome.json["kept"]] == [str(checkpoint.parent)]
        assert (checkpoint.parent / "5").is_dir() and checkpoint.is_dir()
        study.wait_for("epoch")
        study.process.send_signal(2)
        assert study.end()[0] == 130
    finally:
        study.kill()
    outcome = here(tmp_path, "gc", "--json")
    assert [row["path"] for row in outcome.json["found"]] == [str(checkpoint.parent / "5")]
    assert any(checkpoint.glob("*.safetensors")), "it can still go on"
