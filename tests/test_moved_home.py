"""Homes that are not where they were recorded: moved, copied, under two names, or only to be read.

All of them are the home that 0.1.0 recorded, brought here without what later commands set right.

Room: mtl/tracking, mtl/storage, mtl/housekeeping.
"""

import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mtl.storage.urls import file_url
from mtl.tracking.places import Places
from support import small
from support.commands import TINY, sets
from support.disks import Disk
from support.readers import ask, served
from support.recorded_homes import restore
from support.study_runs import Study

ARCHIVE = Path(__file__).parent / "recorded/0.1.0.tar.xz"
FORMER = Path("/nowhere/recorded")  # cannot be made again: nobody may write at the root of a system


@pytest.fixture
def moved(tmp_path: Path) -> Study:
    """The study of a home whose former folder is gone."""
    restore(ARCHIVE, tmp_path, recorded_in=FORMER)
    yield Study.of(tmp_path / "tiny.toml", tmp_path / "home")
    assert not FORMER.parent.exists()


def facts(study: Study) -> dict:
    return json.loads((study.home.parent / "facts.json").read_text("utf-8"))


def best_run(study: Study) -> str:
    return facts(study)["best"]["best"]["run_id"]


def said_of_the_move(here, study: Study) -> list[str]:
    checks = here(study.home.parent, "doctor", "--json", MTL_HOME=str(study.home)).json["checks"]
    return [c["found"] for c in checks if c["name"] in ("moved", "copied")]


def contents(folder: Path) -> dict[str, str]:
    """What is in a folder, by the digest of each file; without SQLite's index of a log."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"]
    return {str(f.relative_to(folder)): sha256(f.read_bytes()).hexdigest() for f in files}


def contents_of(all_of_it: dict[str, str], folder: str) -> dict[str, str]:
    return {name[len(folder) :]: d for name, d in all_of_it.items() if name.startswith(folder)}


def locations(study: Study) -> set[str]:
    """Every address that MLflow's store keeps of what lies in a home."""
    columns = {
        "experiments": ["artifact_location"],
        "runs": ["artifact_uri"],
        "model_versions": ["source", "storage_location"],
    }
    asked = (f"select {c} from {table}" for table, names in columns.items() for c in names)
    rows = [value for each in asked for (value,) in study.query("mlflow.db", each)]
    return {value for value in rows if value and "/artifacts/mlflow/" in value}


def asked_of_mlflow(uri: str, run: str) -> list[str]:
    """What MLflow itself finds in a process that knows nothing of homes: the champion's answer to a
    sentence, and a run's artifacts."""
    code = """
import json, sys, mlflow
uri, run = sys.argv[1:]
mlflow.set_tracking_uri(uri)
table = mlflow.pyfunc.load_model("models:/tiny@champion").predict(["A fine film."])
paths = [found.path for found in mlflow.MlflowClient().list_artifacts(run)]
print(json.dumps([str(table["sentiment_name"][0]), *paths]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code, uri, run]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- moved --------------------------------------------------------------------------------------


def test_all_of_a_moved_home_is_found_where_it_is(moved, here):
    folder, before = moved.home.parent, locations(moved)
    assert all(location.startswith(f"file://{FORMER}/home/") for location in before)
    (said,) = said_of_the_move(here, moved)
    assert f"moved from {FORMER}/home" in said
    page = here(folder, "study", "report", "tiny", "-o", folder / "page.html", "--json")
    assert page.code == 0 and len(page.json["missing"]) == 1, page  # the trial that has not ended
    predicted = here(folder, "predict", best_run(moved), "--data", "demo", "-o", folder / "p")
    assert predicted.code == 0, predicted
    assert locations(moved) == before  # whoever looks writes nothing
    promoted = here(folder, "study", "promote", "tiny", "--json")
    assert promoted.code == 0 and promoted.json["run_id"] == best_run(moved), promoted
    home = moved.home.as_uri()
    assert locations(moved) == {where.replace(f"file://{FORMER}/home", home) for where in before}
    answer, *paths = asked_of_mlflow(f"sqlite:///{moved.home}/mlflow.db", best_run(moved))
    assert answer and {"model", "predictions"} <= set(paths)
    assert said_of_the_move(here, moved) == []


def test_a_study_goes_on_in_a_moved_home(moved, here):
    recorded = {run for (run,) in moved.run_ids()}
    code, out = moved.run_here("--jobs", "1")
    assert code == 0, out
    assert [state for _, state, _ in moved.trials()] == ["COMPLETE"] * 4
    assert recorded < {run for (run,) in moved.run_ids()}
    assert moved.doubles() == []
    left = [path.parent.name for path in (moved.home / "spool").glob("*/journal.jsonl")]
    assert all(name.startswith("train-") for name in left), left  # nothing of the study waits
    for trial in range(4):
        run = moved.attribute(trial, "mlflow_run_id")
        (model,) = (moved.home / "artifacts/mlflow").glob(f"*/{run}/artifacts/model")
        assert (model / "config.toml").is_file()
    tidied = here(moved.home.parent, "gc", "--dry-run", "--json")
    assert [row for row in tidied.json["found"] if row["kind"] in ("run", "artifacts")] == []


def test_mlflows_page_shows_a_moved_home(moved):
    run = best_run(moved)
    with served(moved.home) as (_, page, _):
        paths = json.loads(ask(f"{page}/ajax-api/2.0/mlflow/artifacts/list?run_id={run}"))["files"]
        assert "model" in {file["path"] for file in paths}
        config = ask(f"{page}/get-artifact?path=model/config.toml&run_uuid={run}")
    assert b"lora.rank" in config


# ---- copied -------------------------------------------------------------------------------------


def test_a_copy_is_its_own_and_the_original_stays_as_it_was(tmp_path, here):
    original = tmp_path / "original"
    restore(ARCHIVE, original)
    shutil.copytree(original, tmp_path / "copy")
    copy, before = Study.of(tmp_path / "copy/tiny.toml", tmp_path / "copy/home"), contents(original)
    (said,) = said_of_the_move(here, copy)
    assert f"copy of {original}/home, which is still there" in said
    code, out = copy.run_here("--jobs", "1")
    assert code == 0, out
    assert [state for _, state, _ in copy.trials()] == ["COMPLETE"] * 4
    assert contents(original) == before
    gone = best_run(copy)
    MlflowClient(f"sqlite:///{copy.home}/mlflow.db").delete_run(gone)
    for tidied in (copy.home, original / "home"):
        outcome = here(tmp_path, "gc", "--json", MTL_HOME=str(tidied))
        assert outcome.code == 0 and "mlflow gc" not in outcome.out, outcome
    assert contents(original / "home/artifacts") == contents_of(before, "home/artifacts/")


def test_gc_leaves_what_another_store_may_know(tmp_path, here):
    """Artifacts of a store that was put aside, and of one that is named by nothing any more."""
    restore(ARCHIVE, tmp_path)
    home = tmp_path / "home"
    kept = contents(home / "artifacts")
    (home / "mlflow.db").rename(home / "mlflow.db.damaged")
    other = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/other.db"}
    for env in ({}, other):
        assert here(tmp_path, "train", *sets(*TINY), **env).code == 0
        for path in (home / "artifacts/mlflow").glob("*/*"):
            _age(path)
        outcome = here(tmp_path, "gc", "--json", **env)
        assert outcome.code == 0, outcome
        now = contents(home / "artifacts")
        assert {name: now.get(name) for name in kept} == kept


def _age(folder: Path) -> None:
    """Have a folder written long ago, as far as `mtl gc` can tell."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1e9, 1e9))


RUN = "aecf5ece74134201a703d06e51c6910e"


@pytest.mark.parametrize(
    ("told", "rest"),
    [
        ("file:///old/artifacts/mlflow/sweep", "sweep"),
        (f"file:///old/artifacts/mlflow/sweep/{RUN}/artifacts", f"sweep/{RUN}/artifacts"),
        (f"/old/artifacts/mlflow/7/{RUN}/artifacts/champion", f"7/{RUN}/artifacts/champion"),
        ("file:///o%20%25/artifacts/mlflow/7/models/m-1/artifacts", "7/models/m-1/artifacts"),
        # A home below another's artifacts, and an experiment and artifacts with such names.
        ("file:///a/artifacts/mlflow/b/artifacts/mlflow/c", "c"),
        (f"file:///a/artifacts/mlflow/x/{RUN}/artifacts/mlflow/y", f"x/{RUN}/artifacts/mlflow/y"),
        ("file:///old/artifacts/mlflow/mlflow", "mlflow"),
    ],
)
def test_what_a_home_laid_out_is_found_here(told: str, rest: str, tmp_path: Path):
    root = tmp_path / "a b/artifacts/mlflow"
    assert Places(root, own=True).here(told) == file_url(root / rest)
    # Another store may serve several homes: only what is no longer there, and is here.
    assert Places(root, own=False).here(told) == told
    (root / rest).mkdir(parents=True)
    assert Places(root, own=False).here(told) == file_url(root / rest)


@pytest.mark.parametrize(
    "told",
    ["s3://bucket/artifacts/mlflow/sweep", "mlflow-artifacts:/0/abc", "/data/mlruns/0", "", None,
     "file:///old/artifacts/mlflow/sweep/notes/x", "file://[/artifacts/mlflow/x"],
)  # fmt: skip
def test_what_no_home_laid_out_stays_where_it_is(told: str | None, tmp_path: Path):
    assert Places(tmp_path / "artifacts/mlflow", own=True).here(told) == told


# ---- under two names, and only to be read -------------------------------------------------------


def test_a_home_under_another_name_keeps_the_addresses_that_lead_to_it(tmp_path, here):
    restore(ARCHIVE, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    study = Study.of(tmp_path / "link/tiny.toml", tmp_path / "link/home")
    before = locations(study)
    assert here(tmp_path / "link", "study", "promote", "tiny").code == 0
    assert locations(study) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Study:
    """The study of a moved home that can only be read; what is written lies beside it."""
    disk = Disk(tmp_path / "disk", megabytes=64)
    restore(ARCHIVE, disk.path, recorded_in=FORMER)
    disk.make_read_only()
    yield Study.of(disk.path / "tiny.toml", disk.path / "home")
    disk.close()


def test_what_only_looks_needs_no_right_to_write(read_only, here, tmp_path):
    home, folder = {"MTL_HOME": str(read_only.home)}, tmp_path
    page = here(folder, "study", "report", "tiny", "-o", folder / "page.html", "--json", **home)
    assert page.code == 0 and len(page.json["missing"]) == 1, page
    data = folder / "data"
    small.data(data)
    done = here(folder, "predict", best_run(read_only), "--data", data, "-o", folder / "p", **home)
    assert done.code == 0 and len(list((folder / "p").iterdir())) == 6, done
    for command in (["study", "compare", "tiny"], ["study", "best", "tiny"], ["gc", "--dry-run"]):
        assert here(folder, *command, **home).code == 0, command
    run = best_run(read_only)
    with served(read_only.home, tmp_path / "ui.log") as (said, page, dashboard):
        assert "can only be read" in said
        config = ask(f"{page}/get-artifact?path=model/config.toml&run_uuid={run}")
        assert b"lora.rank" in config
        names = json.loads(ask(f"{dashboard}/api/studies"))["study_summaries"]
        assert [each["study_name"] for each in names] == ["tiny"]
