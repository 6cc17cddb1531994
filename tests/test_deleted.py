"""What people do to experiments, runs and the store itself while a study records: nothing is lost.

Room: mtl/tracking.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import ViewType

from mtl.storage.home import Home
from mtl.storage.sqlite import mend
from mtl.tracking.run_recorder import RunRecorder
from mtl.tracking.store import client_of, connect, load_mlflow
from mtl.tracking.study_tracker import StudyTracker
from support.commands import mtl_here
from support.shaky_server import ShakyServer
from support.study_runs import Study
from support.tracking_samples import new_store, step_report

PARAMS = {"lora.rank": 4, "train.lr": 1e-5}


class Recording:
    """A study's run, and a trial's that trains: ten steps at each `train`."""

    def __init__(self, name="sweep", home=None):
        self.home, self.name, self.step = home or Home.resolve(), name, 0
        self.tracker = StudyTracker(self.home)
        self.own = self.tracker.study_box(f"key{name}")
        self.box = self.trial(7)

    def trial(self, number):
        if not self.own.begun:
            self.tracker.open_study(self.own, self.name, "what it is", {})
        box = self.tracker.trial_box(self.own.folder.name, number)
        self.tracker.open_trial(
            box, parent=self.own, study=self.name, number=number, params=PARAMS, tags={}
        )
        self.send(self.own, box)
        return box

    def train(self):
        recorder = RunRecorder(self.box)
        for step in range(self.step + 1, self.step + 11):
            recorder.on_step(step_report(step))
        self.step += 10
        self.send(self.box)

    def send(self, *boxes):
        for box in boxes:
            self.tracker.uploader.watch(box)
        assert self.tracker.drain(boxes, lambda: False), [box.reason for box in boxes]

    def check(self, client):
        """Everything is in MLflow, once, where people find it."""
        self.tracker.end(self.box, "complete")
        self.tracker.end(self.own, "complete")
        self.send(self.box, self.own)
        parent, run = (client.get_run(box.run.run_id) for box in (self.own, self.box))
        for each in (parent, run):
            assert (each.info.lifecycle_stage, each.info.status) == ("active", "FINISHED")
            assert each.data.tags["mtl.study_key"] == self.own.folder.name
            assert client.get_experiment(each.info.experiment_id).lifecycle_stage == "active"
        assert run.info.experiment_id == parent.info.experiment_id
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"lora.rank": "4", "train.lr": "1e-05"}
        points = client.get_metric_history(run.info.run_id, "train/batch_loss")
        assert [point.step for point in points] == list(range(10, self.step + 1, 10))
        runs = client.search_runs([run.info.experiment_id])
        assert len(runs) == 2, [each.info.run_name for each in runs]


@pytest.fixture(params=["file", "server"])
def recording(request, home):
    """A recording in the home's file, and one on the server that all tests here share."""
    if request.param == "file":
        new_store(home / "mlflow.db")
        made = Recording()
    else:
        server = request.getfixturevalue("server")
        made = Recording(request.node.name, Home(home, server.address, Home.resolve().storage_url))
        made.file = server.folder / "mlflow.db"
    made.train()
    yield made
    made.tracker.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with closing(ShakyServer(tmp_path_factory.mktemp("server"))) as server:
        yield server


def client(recording):
    return client_of(recording.home.mlflow_uri)


def purge(recording):
    """Remove for good what was deleted, as `mlflow gc` does."""
    load_mlflow()
    file = getattr(recording, "file", recording.home.path / "mlflow.db")
    store = client_of(f"sqlite:///{file}")._tracking_client.store
    for run in store._get_deleted_runs():
        store._hard_delete_run(run)
    for experiment in store.search_experiments(ViewType.DELETED_ONLY):
        store._hard_delete_experiment(experiment.experiment_id)


def delete_experiment(recording):
    client(recording).delete_experiment(recording.box.run.experiment_id)


def delete_run(recording):
    client(recording).delete_run(recording.box.run.run_id)


def delete_study_run(recording):
    client(recording).delete_run(recording.own.run.run_id)


def rename_experiment(recording):
    name = f"renamed by somebody {recording.name}"
    client(recording).rename_experiment(recording.box.run.experiment_id, name)


def meddle(recording):
    """End and rename a run, take its tags away, and write others."""
    run, doing = recording.box.run.run_id, client(recording)
    doing.update_run(run, status="FAILED", name="my favourite")
    doing.log_metric(run, "my metric", 1.0, step=3)
    for key in doing.get_run(run).data.tags:
        if key in ("mtl.state", "mtl.trial", f"mtl.run.{recording.box.folder.name}"):
            doing.delete_tag(run, key)
    doing.set_tag(run, "mtl.study", "another")


DEEDS = {
    "experiment-deleted": ([delete_experiment], "restored, with its runs"),
    "experiment-purged": ([delete_experiment, purge], "made anew"),
    "experiment-renamed": ([rename_experiment], None),
    "run-deleted": ([delete_run], "it is restored"),
    "run-purged": ([delete_run, purge], "made anew"),
    "study-run-deleted": ([delete_study_run], None),
    "study-run-purged": ([delete_study_run, purge], "made anew"),
    "all-purged": ([delete_run, delete_study_run, purge], "made anew"),
    "meddled-with": ([meddle], None),
}


@pytest.mark.parametrize("deeds", DEEDS)
def test_what_is_done_in_mlflow_while_a_study_records_loses_nothing(recording, deeds):
    acts, words = DEEDS[deeds]
    for act in acts:
        act(recording)
    recording.train()
    recording.tracker.open_study(recording.own, recording.name, "what it is", {})
    recording.send(recording.own)
    said = " / ".join(recording.tracker.uploader.notices())
    if deeds == "study-run-purged":  # its trial hears of it when its own run is opened again
        recording.box.append("parent")
    recording.check(client(recording))
    said += " / ".join(recording.tracker.uploader.notices())
    assert words is None or words in said


def test_a_trial_goes_where_its_study_s_run_is(recording):
    """Under a new name of the experiment, too, where no other is made."""
    rename_experiment(recording)
    box = recording.trial(8)
    assert box.run.experiment_id == recording.own.run.experiment_id
    assert client(recording).get_experiment_by_name(recording.name) is None


def test_a_parameter_that_somebody_was_quicker_to_log_keeps_nothing_else_out(recording):
    box = recording.tracker.trial_box(recording.own.folder.name, 9)
    run = client(recording).create_run(recording.own.run.experiment_id).info.run_id
    client(recording).log_param(run, "lora.rank", "64")
    named = {"parent": recording.own, "study": recording.name, "number": 9, "run_id": run}
    recording.tracker.open_trial(box, params=PARAMS, tags={}, **named)
    recording.send(box)
    params = client(recording).get_run(run).data.params
    assert params == {"lora.rank": "64", "train.lr": "1e-05"}
    assert "other values of lora.rank" in " ".join(recording.tracker.uploader.notices())


@pytest.mark.parametrize("log", ["with its log", "without"])
def test_a_store_that_is_put_aside_while_it_is_open(home, log):
    """Not followed to where it went: what is recorded is in the file that people look at."""
    new_store(home / "mlflow.db")
    with closing((recording := Recording()).tracker):
        recording.train()
        moved = "mlflow.db*" if log == "with its log" else "mlflow.db"
        for file in list(home.glob(moved)):
            file.rename(home / file.name.replace("mlflow", "aside"))
        recording.train()
        with closing(sqlite3.connect(home / "mlflow.db")) as database:
            assert database.execute("select count(*) from runs").fetchone() == (2,)
        recording.check(client(recording))


def test_the_log_of_a_store_that_was_put_aside_spoils_no_other(home):
    """SQLite would put its pages into whatever file comes in its place."""
    file = home / "mlflow.db"
    new_store(file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("insert into experiments (name) values ('from the log')")
        database.commit()
        for each in [*home.glob("mlflow.db*")]:
            shutil.copy(each, home / f"killed-{each.name}")  # as kill -9 leaves them
    for each in [*home.glob("killed-*")]:
        each.replace(home / each.name.removeprefix("killed-"))
    assert f"mv {file}-wal {file}.damaged-wal" in mend(file)
    file.rename(home / "aside.db")
    found = connect(Home.resolve().mlflow_uri, home / "artifacts/mlflow").search_experiments()
    assert [experiment.name for experiment in found] == ["Default"]


def test_a_study_whose_store_is_gone_has_its_runs_again(tmp_path):
    """By the same command: the scores that Optuna has, and the files that lie in the home."""
    study = Study(tmp_path / "study", tmp_path / "home", epochs=1, steps=1).furnished()
    code, out = study.run_here("--jobs", "1", "--trials", "1")
    assert code == 0, out
    before = {row[0] for row in study.run_ids()}
    for file in list(study.home.glob("mlflow.db*")):
        file.rename(file.with_name(file.name.replace("mlflow.db", "mlflow.db.damaged")))
    code, out = study.run_here("--jobs", "1", "--trials", "1")
    assert code == 0 and "nothing to do" in out, out
    assert "MLflow does not have run" in out and "of 1 ended trial" in out.lower(), out
    assert study.runs() == {"study tiny": "FINISHED", "trial 0": "FINISHED"}
    now = {row[0] for row in study.run_ids()}
    assert not now & before
    best = json.loads(study.mtl("best", "tiny", "--json")[1])
    assert best["best"]["run_id"] in now
    assert study.tag("trial 0", "mlflow.parentRunId") in now
    scores = study.query("mlflow.db", "select value from metrics where key = 'final/score'")
    assert [score for (score,) in scores] == [pytest.approx(best["best"]["score"])]
    env = {"MTL_HOME": str(study.home)}
    data = study.file.parent / "data"
    predicted = mtl_here(
        tmp_path, "predict", best["best"]["run_id"], "--data", data, "-o", tmp_path / "out", **env
    )
    assert predicted.code == 0, predicted
    promoted = mtl_here(tmp_path, "study", "promote", "tiny", **env)
    assert promoted.code == 0 and "now the champion" in promoted.out, promoted
    code, out = study.run_here("--jobs", "1", "--trials", "1")
    assert code == 0 and "MLflow does not have" not in out and len(study.run_ids()) == 2
    assert not list(Path(study.home / "spool").iterdir())
