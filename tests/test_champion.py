"""The best model in MLflow's registry: loaded by MLflow, without pickle, for plain sentences.

Room: mtl/tracking.
"""

import csv
import json

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
