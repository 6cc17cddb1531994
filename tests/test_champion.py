"""The best model in MLflow's registry: loaded by MLflow, without pickle, for plain sentences.

Room: mtl/tracking.
"""

import csv
import json
import shutil

import mlflow
import optuna
import pandas as pd
import pytest
from optuna_dashboard import get_note

from minbert import InputError
from mtl.pyfunc import _rows
from support.study_runs import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("champion")
    study = Study(folder / "study", folder / "home", epochs=1, trials=2)
    code, out = study.run_here("--jobs", "1")
    assert code == 0, out
    return study


@pytest.fixture
def promote(study):
    """Run `mtl study promote tiny` in the study's home; return what it says as JSON."""

    def run(*options):
        code, said = study.mtl("promote", "tiny", "--json", *options)
        assert code == 0, said
        return json.loads(said)

    return run


@pytest.fixture
def load(study, monkeypatch):
    """Load a model from the study's registry as a user of MLflow does."""
    uri = f"sqlite:///{study.home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield mlflow.pyfunc.load_model
    mlflow.set_tracking_uri(before)


def test_the_best_trial_is_the_champion_once(study, promote):
    first, again = promote(), promote()
    scores = {number: score for number, _, score in study.trials()}
    best = max(scores, key=scores.get)
    assert (first["trial"], first["score"]) == (best, scores[best])
    assert first["run_id"] == study.attribute(best, "mlflow_run_id")
    assert first["version"] == again["version"] and not again["new"]
    other = promote("--trial", str(1 - best))
    assert other["new"] and other["version"] != first["version"]
    assert promote()["version"] == first["version"]  # and back, without another copy
    aliases = study.query("mlflow.db", "select alias, version from registered_model_aliases")
    assert aliases == [("champion", first["version"])]


def test_it_answers_as_the_training_s_best_epoch_did(study, promote, load):
    """Against the dev predictions that the training left."""
    run_id = promote()["run_id"]
    model = load("models:/tiny@champion")
    folder = study.home / "artifacts/mlflow/tiny" / run_id / "artifacts"
    assert {f.suffix for f in (folder / "champion").rglob("*") if f.is_file()} <= {
        "", ".safetensors", ".json", ".toml", ".txt", ".yaml"}  # fmt: skip

    def rows(task):
        with (folder / f"predictions/dev-{task}.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    sst = rows("sst")
    answers = model.predict([row["sentence"] for row in sst])
    assert answers["sentiment"].tolist() == [int(row["prediction"]) for row in sst]
    sts = rows("sts")
    answers = model.predict(pd.DataFrame(sts)[["sentence1", "sentence2"]])
    expected = [float(row["prediction"]) for row in sts]
    assert answers["similarity"].tolist() == pytest.approx(expected, abs=1e-4)
    para = [(row["sentence1"], row["sentence2"]) for row in rows("para")]
    mixed = model.predict([*para, sst[0]["sentence"]])
    expected = [float(row["probability"]) for row in rows("para")]
    assert mixed["paraphrase"].tolist()[:-1] == pytest.approx(expected, abs=1e-4)
    assert mixed["sentiment"].isna().tolist() == [True] * len(para) + [False]


@pytest.mark.parametrize(
    "deed", ["version deleted", "model deleted", "model renamed", "alias moved", "files removed"]
)
def test_promoting_again_mends_what_was_done_to_the_champion(study, promote, load, deed):
    before = promote()
    client, version = mlflow.MlflowClient(), str(before["version"])
    if deed == "version deleted":
        client.delete_model_version("tiny", version)
    elif deed == "model deleted":
        client.delete_registered_model("tiny")
    elif deed == "model renamed":
        client.rename_registered_model("tiny", "mine")
    elif deed == "alias moved":
        other = promote("--trial", str(1 - before["trial"]))
        client.set_registered_model_alias("tiny", "champion", str(other["version"]))
    else:
        artifacts = study.home / "artifacts/mlflow/tiny" / before["run_id"] / "artifacts"
        shutil.rmtree(artifacts / "champion")
    after = promote()
    assert (after["trial"], after["run_id"]) == (before["trial"], before["run_id"])
    assert len(load("models:/tiny@champion").predict(["A fine film."])) == 1


@pytest.mark.parametrize(
    "given",
    [
        *([("a", "b", "c")], [()], {"text": ["a"]}),
        {"sentence1": ["a", None], "sentence2": ["b", "its answer would be this one's"]},
        {"sentence1": [""]},
    ],
)
def test_input_that_is_no_sentence_is_refused(given):
    with pytest.raises(InputError):
        _rows(given)


def test_what_cannot_be_promoted(study):
    for name, option, words in (
        ("tiny", "7", "has no trial 7"),
        ("nothing", "0", "no study 'nothing' is recorded"),
    ):
        code, said = study.mtl("promote", name, "--trial", option)
        assert code == 2 and words in said


def test_the_dashboard_knows_the_score_and_where_each_run_is(study):
    recorded = optuna.load_study(
        study_name="tiny", storage=f"sqlite:///{study.home / 'optuna.db'}"
    )
    assert recorded.metric_names == ["dev score"]
    for frozen in recorded.get_trials():
        note = get_note(optuna.trial.Trial(recorded, frozen._trial_id))
        run_id = frozen.user_attrs["mlflow_run_id"]
        assert f"(http://127.0.0.1:5000/#/experiments/1/runs/{run_id}?workflowType=" in note
        assert f"r={frozen.params['lora.rank']}" in note
    about = get_note(recorded)
    assert "a tiny study" in about and "viewStateShareKey=mtl" in about
