"""A home in folders with any letters, found again by everything that takes a URL instead of a path.

Room: mtl/storage.
"""

import configparser
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings, strategies as st
from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy.engine import make_url

from mtl.common.masking import masked
from mtl.storage.urls import alike, file_path, file_url, optuna_template, sqlite_url
from mtl.ui.login import Login
from mtl.ui.mlflow_server import _auth_settings
from support.readers import ask, served
from support.study_runs import Study

ODD = "müller@corp.example.com %20%[c]#d?e&f'g\"h;i:j k{l}|$m\\n=o+~*,<t>!`w%41 日本"
FOLDERS = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp"), blacklist_characters="/"),
    min_size=1, max_size=20,
).filter(lambda name: name not in (".", ".."))  # fmt: skip


@given(FOLDERS)
@example(ODD)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_library_reads_the_same_file_from_a_url(folder):
    file = Path("/home") / folder / "optuna.db"
    url = sqlite_url(file)
    assert make_url(url).database == str(file)
    assert url.format(SCHEMA_VERSION=0) == url  # as Optuna takes it
    text = url.removeprefix("sqlite:///")  # MLflow makes the folder of this text
    assert text in (str(file), url)
    assert alike(url) == url and alike(f"{url}?timeout=5") == f"{url}?timeout=5"
    assert file_path(file_url(file)) == file
    assert local_file_uri_to_path(file_url(file)) == str(file)


def test_a_url_s_path_is_percent_encoded_and_other_addresses_stay_as_they_are():
    assert make_url(alike("sqlite:////a%20b/x.db?timeout=5")).database == "/a b/x.db"
    assert alike("sqlite:////a%20b/x.db") == "sqlite:////a b/x.db"
    for url in ("sqlite://", "sqlite:///:memory:", "postgresql://u:%7Bx@h/d", "http://h:5000", "x"):
        assert alike(url) == url
    assert optuna_template("postgresql://u:{x}@h/d").format() == "postgresql://u:{x}@h/d"
    assert file_path("s3://bucket/a") is None and file_path("http://[x/a") is None


def test_a_password_s_own_database_lies_in_any_folder(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    _auth_settings(folder, Login("me", "a long password"))
    told = configparser.ConfigParser()
    told.read(folder / "auth.ini", encoding="utf-8")
    url = told["mlflow"]["database_uri"]
    assert make_url(url).database == str(folder / "users.db")
    assert masked(url) == url  # its @ begins no host


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    """A study of one trial; study file, backbone, data and home lie in the odd folder."""
    folder = tmp_path_factory.mktemp("folders") / ODD
    study = Study(folder / "study", folder / "home", epochs=1, trials=1).furnished()
    code, out = study.run_here("--jobs", "1")
    assert code == 0, out
    return study


def _mtl(here, study, *args, **env):
    done = here(study.file.parent, *args, MTL_HOME=str(study.home), **env)
    assert done.code == 0 and not done.err, done
    return done.out


def test_a_study_is_predicted_with_reported_and_looked_at(here, study, tmp_path):
    run_id = study.attribute(0, "mlflow_run_id")
    assert (study.home / "artifacts/mlflow/tiny" / run_id / "artifacts/model").is_dir()
    _mtl(here, study, "predict", run_id, "--data", study.file.parent / "data", "-o", tmp_path / "p")
    assert len(list((tmp_path / "p").iterdir())) == 6
    _mtl(here, study, "study", "report", "tiny", "-o", tmp_path / "r.html")
    assert "nothing to remove" in _mtl(here, study, "gc", "--dry-run")
    source, = study.query("mlflow.db", "select distinct dataset_source from datasets")[0]
    assert file_path(json.loads(source)["uri"]) == study.file.parent / "data"


def test_a_champion_is_loaded_by_what_promote_prints(here, study):
    said = _mtl(here, study, "study", "promote", "tiny").partition("In Python:\n")[2]
    lines = [line.strip() for line in said.splitlines()]
    lines[-1] = f"print({lines[-1]})"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True,
        cwd=study.file.parent, env={**os.environ, "MTL_HOME": ""},
    )  # fmt: skip
    assert done.returncode == 0 and "sentiment" in done.stdout, done.stderr[-2000:]


def test_both_pages_show_it(study):
    with served(study.home, TMPDIR=str(study.home.parent)) as (said, mlflow, dashboard):
        run_id = study.attribute(0, "mlflow_run_id")
        page = ask(f"{mlflow}/get-artifact?run_id={run_id}&path=model/config.toml")
        assert b"last-linear-layer" in page
        summaries = json.loads(ask(f"{dashboard}/api/studies"))["study_summaries"]
        assert [summary["study_name"] for summary in summaries] == ["tiny"]


def test_databases_are_named_by_urls_and_folders_of_other_names_are_not_made(here, study, tmp_path):
    """Percent-encoded, as SQLAlchemy has it, the files are those of the home."""
    env = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{file_url(study.home / 'mlflow.db')[7:]}",
        "MTL_STORAGE": f"sqlite:///{file_url(study.home / 'optuna.db')[7:]}",
    }
    run_id = study.attribute(0, "mlflow_run_id")
    data = study.file.parent / "data"
    _mtl(here, study, "predict", run_id, "--data", data, "-o", tmp_path / "p", **env)
    assert "1 complete" in _mtl(here, study, "study", "status", "tiny", **env)
    assert f"{study.home}/mlflow.db: " in _mtl(here, study, "doctor", **env)
    top = study.home.parent
    assert [path.name for path in top.parent.iterdir()] == [ODD]
    assert {path.name for path in top.iterdir()} == {"home", "study"}


def test_a_database_that_no_line_can_hold_is_refused(here, tmp_path):
    url = f"sqlite:///{tmp_path}/a%0Ab/x.db"
    predict = ("predict", "abc", "--data", "demo", "-o", "p")
    for variable, command in ("MTL_STORAGE", ("study", "list")), ("MLFLOW_TRACKING_URI", predict):
        here(tmp_path, *command, **{variable: url}).refused(variable, "control characters")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\u2028b", "caf\udce9"], ids=ascii)
def test_a_home_that_no_line_can_hold_is_refused(here, tmp_path, name):
    here(tmp_path, "study", "list", MTL_HOME=str(tmp_path / name)).refused("MTL_HOME=")
    assert not list(tmp_path.iterdir())


def test_braces_in_a_server_s_password_are_its_own(here, tmp_path):
    url = "postgresql+psycopg://me:{pass}word@127.0.0.1:1/studies"
    outcome = here(tmp_path, "study", "list", MTL_STORAGE=url)
    outcome.refused("cannot be reached")
    assert "{pass}" not in outcome.err
