"""Homes that earlier versions recorded are read, gone on with and served by this one.

`recorded/VERSION.tar.xz` is a home as that version left it, and what it said of it itself:
`recorded/make_recorded_home.py`. What has come since (further keys, columns, checks) is no fault.

Room: mtl/storage, mtl/tracking.
"""

import csv
import json
import math
import shutil
from pathlib import Path

import mlflow
import pytest

from support.commands import mtl_process
from support.readers import ask, served
from support.recorded_homes import restore
from support.study_runs import Study

VERSIONS = ("0.1.0",)
ROUNDING = 1e-5  # of one number, by another processor
TRAINED = 0.02  # of a score after some steps with such numbers; of what is drawn, nothing


@pytest.fixture(scope="module", params=VERSIONS)
def archive(request) -> Path:
    return Path(__file__).parent / "recorded" / f"{request.param}.tar.xz"


@pytest.fixture(scope="module")
def recorded(archive: Path, tmp_path_factory) -> Path:
    """The folder that holds the home and what was said of it: to read."""
    folder = tmp_path_factory.mktemp("recorded")
    restore(archive, folder)
    return folder


@pytest.fixture(scope="module")
def facts(recorded: Path) -> dict:
    """What the version that recorded the home said of it, and how it went on."""
    return json.loads((recorded / "facts.json").read_text(encoding="utf-8"))


@pytest.fixture
def study(archive: Path, recorded: Path, tmp_path: Path) -> Study:
    """Its study, in a home of which the test is free to make something else."""
    restore(archive, tmp_path / "copy")
    if (cache := recorded / "home/cache").is_dir():
        shutil.copytree(cache, tmp_path / "copy/home/cache")
    return Study.of(tmp_path / "copy/tiny.toml", tmp_path / "copy/home")


@pytest.fixture
def load(recorded: Path, monkeypatch):
    """Load a model from the home's registry as a user of MLflow does."""
    uri = f"sqlite:///{recorded / 'home/mlflow.db'}"
    monkeypatch.setenv("MTL_HOME", str(recorded / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield mlflow.pyfunc.load_model
    mlflow.set_tracking_uri(before)


def lost(then: object, now: object, where: str = "") -> list[str]:
    """Say what was said then and is not now: a line each. What is said beside it does not count."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = [lost(then[key], now.get(key), f"{where}.{key}") for key in then]
        return [line for lines in found for line in lines]
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        found = [lost(*pair, f"{where}[{i}]") for i, pair in enumerate(zip(then, now, strict=True))]
        return [line for lines in found for line in lines]
    if isinstance(then, float) and isinstance(now, float):
        return [] if math.isclose(then, now, rel_tol=1e-9) else [f"{where}: {then}, now {now}"]
    return [] if then == now else [f"{where}: {then!r}, now {now!r}"]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def predicted(file: Path) -> tuple[str, list[str], list[float]]:
    """Header, ids and values of a prediction file."""
    header, *lines = file.read_text("utf-8").splitlines()
    ids, values = zip(*(line.split(" , ") for line in lines), strict=True)
    return header, list(ids), [float(value) for value in values]


def waiting(study: Study) -> list[tuple[str, str, int, float]]:
    """Points that MLflow did not have yet, by run, key and step."""
    found = []
    for journal in sorted((study.home / "spool").glob("*/journal.jsonl")):
        run = json.loads(journal.with_name("run.json").read_text())["run_id"]
        sent = int(journal.with_name("sent").read_text())
        for line in map(json.loads, journal.read_bytes()[sent:].splitlines()):
            values = line["values"] if line["op"] == "metrics" else {}
            found += [(run, key, line["step"], value) for key, value in values.items()]
    return found


def status_of(study: Study, run: str) -> str:
    ((status,),) = study.query("mlflow.db", f"select status from runs where run_uuid = '{run}'")
    return status


def curves(study: Study, number: int) -> set[tuple[str, int]]:
    """Key and step of a trial's points but those of its best epoch, whichever that is."""
    once, name = ("final/", "parameters/"), f"trial {number} "
    points = [point[:3] for point in study.points() if not point[1].startswith(once)]
    return {(key, step) for run, key, step in points if run.startswith(name)}


# ---- read ---------------------------------------------------------------------------------------


def test_it_is_listed(recorded, facts):
    listed = mtl_process(recorded, "study", "list", "--json", MTL_HOME=str(recorded / "home"))
    assert lost(facts["recorded"], listed.json["recorded"]) == []


@pytest.mark.parametrize("command", ["status", "best", "compare"])
def test_it_is_described_as_it_was(recorded, facts, here, command):
    outcome = here(recorded, "study", command, "tiny", "--json")
    assert outcome.code == 0, outcome
    assert lost(facts[command], outcome.json) == []


def test_its_table_is_the_same(recorded, here, tmp_path):
    outcome = here(recorded, "study", "export", "tiny", "-o", tmp_path / "now.csv")
    assert outcome.code == 0, outcome
    assert lost(rows(recorded / "export.csv"), rows(tmp_path / "now.csv")) == []


def test_its_report_lacks_only_the_trial_that_has_not_ended(recorded, facts, here, tmp_path):
    outcome = here(recorded, "study", "report", "tiny", "-o", tmp_path / "page.html", "--json")
    assert outcome.code == 0, outcome
    best, missing = facts["best"]["best"], outcome.json["missing"]
    assert outcome.json["best"] == best["number"]
    assert len(missing) == 1 and "trial 2" in missing[0], missing
    assert f"{best['score']:.3f}" in (tmp_path / "page.html").read_text("utf-8")


def test_its_best_model_predicts_the_same(recorded, facts, here, tmp_path):
    run = facts["best"]["best"]["run_id"]
    outcome = here(recorded, "predict", run, "--data", "demo", "-o", tmp_path, "--json")
    assert outcome.code == 0 and len(outcome.json["files"]) == 6, outcome
    for file in map(Path, outcome.json["files"]):
        *names, values = predicted(recorded / "predictions" / file.name)
        *names_now, values_now = predicted(file)
        assert names_now == names, file.name
        assert values_now == pytest.approx(values, rel=ROUNDING, abs=ROUNDING), file.name


def test_its_champion_answers_the_same(facts, load):
    table = load("models:/tiny@champion").predict(facts["questions"])
    answers = json.loads(table.to_json(orient="records"))
    for then, now in zip(facts["answers"], answers, strict=True):
        assert now.keys() == then.keys()
        for key, answer in then.items():
            number = isinstance(answer, float)
            assert now[key] == (pytest.approx(answer, abs=ROUNDING) if number else answer), key


def test_nothing_is_wrong_with_it_and_nothing_of_it_is_unneeded(recorded, facts, here):
    checks = {c["name"]: c for c in here(recorded, "doctor", "--json").json["checks"]}
    for name in ("home", "optuna database", "mlflow database"):
        assert checks[name]["state"] == "ok", checks[name]
    assert checks["studies"]["mend"] == facts["status"]["command"]
    tidied = here(recorded, "gc", "--dry-run", "--json")
    assert (tidied.code, tidied.json["found"], tidied.json["failed"]) == (0, [], [])


def test_both_pages_show_it(study, facts):
    run = facts["best"]["best"]["run_id"]
    with served(study.home) as (said, mlflow_page, dashboard):
        assert "tiny" in said
        found = json.loads(ask(f"{mlflow_page}/ajax-api/2.0/mlflow/runs/get?run_id={run}"))["run"]
        metrics = {point["key"]: point["value"] for point in found["data"]["metrics"]}
        assert metrics["final/score"] == pytest.approx(facts["best"]["best"]["score"])
        names = json.loads(ask(f"{dashboard}/api/studies"))["study_summaries"]
        assert [each["study_name"] for each in names] == ["tiny"]


# ---- go on --------------------------------------------------------------------------------------


def test_what_waited_for_mlflow_is_sent_once(study, here):
    points = waiting(study)
    outcome = here(study.file.parent, "study", "sync", "--json")
    assert outcome.code == 0, outcome
    assert waiting(study) == [] and study.doubles() == []
    there = study.query("mlflow.db", "select run_uuid, key, step, value from metrics")
    assert points and set(points) <= set(there)


def test_the_study_goes_on(study, facts, here):
    ended = [trial for trial in study.trials() if trial[1] == "COMPLETE"]
    points = {point for point in study.points() if point[0].startswith(("trial 0", "trial 1"))}
    unfinished, runs = study.attribute(2, "mlflow_run_id"), study.run_ids()
    assert [number for number, _, _ in ended] == [0, 1] and points
    assert status_of(study, unfinished) == "RUNNING"

    outcome = here(study.file.parent, "study", "run", "./tiny.toml", "--jobs", "1")

    assert outcome.code == 0 and "trial 2 resumed" in outcome.out, outcome
    assert "trial 2 epoch 1:" not in outcome.out  # from its checkpoint
    assert not (study.home / "checkpoints/tiny/2").exists()
    assert [state for _, state, _ in study.trials()] == ["COMPLETE"] * 4
    assert study.trials()[:2] == ended and points <= set(study.points())
    assert study.attribute(2, "mlflow_run_id") == unfinished
    assert study.run_ids()[:-1] == runs  # the fourth trial's came
    statuses = {run: status_of(study, run) for (run,) in study.run_ids()}
    assert statuses.pop(facts["training"]) == "KILLED"
    assert set(statuses.values()) == {"FINISHED"}
    # What the killed dispatcher had in its hands is there, too, and once.
    assert study.doubles() == []
    assert curves(study, 2) == curves(study, 3) == curves(study, 0) != set()

    outcome = here(study.file.parent, "study", "export", "tiny", "--json")
    trials = {row["number"]: row for row in outcome.json["trials"]}
    for then in facts["goes_on"]["trials"]:
        now = trials[then["number"]]
        assert now["params"] == then["params"]
        assert now["score"] == pytest.approx(then["score"], abs=TRAINED)


def test_the_training_goes_on(study, facts, here):
    run, runs = facts["training"], study.run_ids()
    assert status_of(study, run) == "KILLED"
    outcome = here(study.file.parent, "train", "--resume", run)
    assert outcome.code == 0 and "epoch 6:" in outcome.out, outcome
    assert "epoch 1:" not in outcome.out  # from its checkpoint
    assert not (study.home / "checkpoints/train" / run).exists()
    assert study.run_ids() == runs and status_of(study, run) == "FINISHED"
    assert study.doubles() == []
    points = study.query("mlflow.db", f"select key, value from metrics where run_uuid = '{run}'")
    score = facts["goes_on"]["training"]["score"]
    assert dict(points)["final/score"] == pytest.approx(score, abs=TRAINED)
