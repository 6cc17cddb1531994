"""What a study and its trainings leave in a real MLflow store.

Room: mtl/tracking.
"""

import json
import multiprocessing
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from minbert import Config, InputError
from mtl.storage.home import Home
from mtl.tracking.inputs import DatasetInput
from mtl.tracking.outbox import Outbox, Run
from mtl.tracking.run_recorder import RunRecorder
from mtl.tracking.sender import Sender
from mtl.tracking.store import connect
from mtl.tracking.study_tracker import StudyTracker
from mtl.tracking.uploader import Uploader
from mtl.trials.labels import run_name, trial_label
from mtl.trials.leaderboard import leaderboard
from support.tracking_samples import epoch_report, new_store, step_report

PARAMS = {
    "backbone": "demo",
    "train.lr": 1e-5,
    "train.mode": "full-model",
    "lora.rank": 4,
    "lora.alpha": 8.0,
}


@pytest.fixture
def uri():
    return new_store(Home.resolve().path / "mlflow.db")


@pytest.fixture
def tracker(uri):
    tracker = StudyTracker(Home.resolve())
    yield tracker
    tracker.close()


def study_run(tracker, text="what it is", tags=None, run_id=None, name="sweep"):
    """Open a study's run; return its id."""
    tracker.open_study(tracker.study_box("key"), name, text, tags or {}, run_id)
    return tracker.wait_for_run(tracker.study_box("key")).run_id


def study_box(tracker) -> Outbox:
    study_run(tracker)
    return tracker.study_box("key")


def trial_box(tracker, number=7, **more) -> Outbox:
    """Begin a trial's run, which MLflow has created when this returns."""
    box = tracker.trial_box("key", number)
    tracker.open_trial(
        box,
        parent=study_box(tracker),
        study="sweep",
        number=number,
        params=PARAMS,
        tags={"mtl.profile": "demo", "mtl.git_commit": "abc123", "mtl.nothing": None},
        label="r=4 α=8",
        **more,
    )
    assert tracker.wait_for_run(box)
    return box


def sent(tracker, *boxes) -> None:
    """Wait until MLflow has everything."""
    for box in boxes:
        tracker.uploader.watch(box)
    assert tracker.drain(boxes, lambda: False)


def history(uri, run_id):
    """Every point of a run but times: {(key, step): value}; fails on a point logged twice."""
    client = MlflowClient(uri)
    points = {}
    for key in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, key):
            assert (key, point.step) not in points
            points[key, point.step] = point.value
    return points


def train(box, first=1, last=50, steps_per_epoch=25):
    """Observe the steps of a training from `first` to `last`, as its trainer would send them."""
    recorder = RunRecorder(box)
    for step in range(first, last + 1):
        recorder.on_step(step_report(step))
        if step % steps_per_epoch == 0:
            recorder.on_epoch(epoch_report(step // steps_per_epoch, steps_per_epoch))


def test_a_trial_run_says_what_it_is(tracker, uri, home):
    parent = study_run(tracker)
    data = [DatasetInput("sst/train", "d" * 64, 120, "/data"), DatasetInput("sst/dev", "e", 9, "")]
    run = MlflowClient(uri).get_run(trial_box(tracker, datasets=data).run.run_id)
    assert run.info.run_name == "trial 7 · r=4 α=8"
    assert run.info.status == "RUNNING"
    assert run.info.artifact_uri.startswith((home / "artifacts/mlflow/sweep").as_uri())
    assert run.data.params == {
        "backbone": "demo",
        "train.lr": "1e-05",
        "train.mode": "full-model",
        "lora.rank": "4",
        "lora.alpha": "8.0",
    }
    tags = run.data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert (tags["mtl.study"], tags["mtl.trial"], tags["mtl.state"]) == ("sweep", "7", "running")
    assert tags["mtl.profile"] == "demo"
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert "mtl.nothing" not in tags
    inputs = {i.dataset.name: i for i in run.inputs.dataset_inputs}
    assert set(inputs) == {"sst/train", "sst/dev"}
    assert json.loads(inputs["sst/train"].dataset.profile) == {"num_rows": 120}
    assert inputs["sst/dev"].tags[0].value == "dev"


def test_a_study_is_one_experiment_with_one_parent(tracker, uri):
    parent = study_run(tracker, "first", {"mtl.settings": {"a": 1}})
    assert study_run(tracker, "again", run_id=parent) == parent
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("sweep")
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [parent]
    assert runs[0].data.tags["mlflow.note.content"] == "again"


def test_a_run_that_was_deleted_in_the_browser_comes_back(tracker, uri):
    parent, box = study_run(tracker), tracker.study_box("key")
    tracker.end(box, "killed")
    sent(tracker, box)
    MlflowClient(uri).delete_run(parent)
    study_run(tracker, run_id=parent)
    info = MlflowClient(uri).get_run(parent).info
    assert (info.lifecycle_stage, info.status) == ("active", "RUNNING")


@pytest.mark.parametrize(
    ("state", "status"),
    [("complete", "FINISHED"), ("pruned", "FINISHED"), ("failed", "FAILED"), ("killed", "KILLED")],
)
def test_a_run_ends_with_status_state_and_reason(tracker, uri, state, status):
    box = trial_box(tracker)
    run_id = box.run.run_id
    tracker.end(box, state, "why it ended")
    sent(tracker, box)
    run = MlflowClient(uri).get_run(run_id)
    assert run.info.status == status
    assert run.data.tags["mtl.state"] == state
    assert run.data.tags["mtl.reason"] == "why it ended"
    assert run.info.end_time >= run.info.start_time
    assert box.closed == (state != "killed")
    tracker.reopen(box, run_id)
    sent(tracker, box)
    run = MlflowClient(uri).get_run(run_id)
    assert (run.info.status, run.data.tags.get("mtl.reason")) == ("RUNNING", None)
    assert not box.closed


def test_a_text_is_kept(tracker, uri, tmp_path):
    box = trial_box(tracker)
    tracker.log_text(box, "Traceback …", "traceback.txt")
    sent(tracker, box)
    path = MlflowClient(uri).download_artifacts(box.run.run_id, "traceback.txt", str(tmp_path))
    assert Path(path).read_text(encoding="utf-8") == "Traceback …"


def test_metrics_of_a_training(tracker, uri):
    box = trial_box(tracker)
    train(box)
    sent(tracker, box)
    points = history(uri, box.run.run_id)
    keys = {key for key, _ in points}
    assert keys >= {
        *("dev/sst_accuracy", "dev/para_accuracy", "dev/sts_pearson", "dev/score", "best/score"),
        *("train/loss", "train/loss_sst", "train/loss_para", "train/loss_sts"),
        *("train/lr", "train/tokens_per_second", "train/batch_loss"),
    }
    assert sorted(step for key, step in points if key == "train/batch_loss") == [10, 20, 30, 40, 50]
    assert sorted(step for key, step in points if key == "train/lr") == [10, 20, 25, 30, 40, 50]
    assert points["train/batch_loss", 20] == step_report(20).loss
    assert points["dev/score", 50] == epoch_report(2).scores["score"]
    assert points["train/loss_sst", 25] == 1.5
    assert points["train/loss", 25] == pytest.approx((1.5 + 0.6 + 0.9) / 3)
    assert points["train/tokens_per_second", 10] == pytest.approx(200)


# Killed after step `killed`, resumed from the checkpoint of step `checkpoint`.
@pytest.mark.parametrize(("killed", "checkpoint"), [(33, 27), (25, 24), (25, 0), (44, 44), (50, 3)])
def test_a_resumed_training_leaves_the_points_of_an_undisturbed_one(
    tracker, uri, killed, checkpoint
):
    whole, broken = trial_box(tracker, 1), trial_box(tracker, 2)
    train(whole)
    train(broken, last=killed)
    train(broken, first=checkpoint + 1)
    sent(tracker, whole, broken)

    def exact(box):  # of what is measured the points agree, the values may not
        points = history(uri, box.run.run_id)
        measured = ("train/tokens", "system/")
        return {k: 0 if k[0].startswith(measured) else v for k, v in points.items()}

    assert exact(broken) == exact(whole)


def test_recording_is_complete_after_every_call(tracker):
    box = trial_box(tracker)
    RunRecorder(box).on_step(step_report(10))
    assert ("train/batch_loss", 10) in Outbox(box.folder).points()


def test_a_sender_that_died_before_it_noted_what_it_sent_is_followed_by_another(tracker, uri, home):
    """Everything is sent again, by a process that has seen nothing, and nothing is there twice."""
    box = trial_box(tracker)
    train(box)
    tracker.end(box, "complete")
    sent(tracker, box)
    before, run_id = history(uri, box.run.run_id), box.run.run_id
    box.mark_sent(0)
    (box.folder / "run.json").unlink()
    with closing(Uploader(Sender(uri, home / "artifacts/mlflow"))) as uploader:
        uploader.watch(box)
        assert uploader.wait([box])
    assert box.run.run_id == run_id
    assert history(uri, run_id) == before
    client = MlflowClient(uri)
    experiments = [client.get_experiment_by_name("sweep").experiment_id]
    assert len(client.search_runs(experiments)) == 2  # the study's and the trial's


def test_a_view_is_offered_where_only_the_run_s_id_was_noted(tracker, uri):
    """It waits before the reopening that would say which experiment the run is in."""
    study_run(tracker)
    box = tracker.study_box("key")
    sent(tracker, box)
    box.set_run(Run(box.run.run_id, None))
    box.append("view", keys=["lora.rank"])
    sent(tracker, box)
    experiment = MlflowClient(uri).get_experiment_by_name("sweep")
    assert "params.`lora.rank`" in experiment.tags["mlflow.sharedViewState.mtl"]


def test_a_line_that_was_cut_off_spoils_no_other(tracker, uri):
    box = trial_box(tracker)
    recorder = RunRecorder(box)
    recorder.on_step(step_report(10))
    with (box.folder / "journal.jsonl").open("a") as journal:
        journal.write('{"op": "metrics", "st')
    recorder.on_step(step_report(20))
    sent(tracker, box)
    points = history(uri, box.run.run_id)
    assert sorted(step for key, step in points if key == "train/batch_loss") == [10, 20]


def _create(barrier, names):
    barrier.wait()
    with closing(StudyTracker(Home.resolve())) as tracker:
        names.put(study_run(tracker, name="same"))


def test_processes_that_start_at_once_share_a_new_store(home):
    uri = Home.resolve().mlflow_uri
    context = multiprocessing.get_context("spawn")
    barrier, names = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_create, args=(barrier, names)) for _ in range(2)]
    for process in processes:
        process.start()
    runs = {names.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    client = MlflowClient(uri)
    assert len({client.get_run(run).info.experiment_id for run in runs}) == 1
    with sqlite3.connect(home / "mlflow.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_damaged_store_is_one_clear_line(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(InputError, match="mlflow.db cannot be opened: .*not a database") as caught:
        connect(uri, tmp_path)
    assert "\n" not in str(caught.value)


def test_nothing_global_is_set(tracker, uri):
    import mlflow

    before = mlflow.get_tracking_uri()
    box = trial_box(tracker)
    train(box, last=30)
    sent(tracker, box)
    assert mlflow.get_tracking_uri() == before != uri
    assert mlflow.active_run() is None


def test_a_run_s_address_is_one_that_a_browser_can_open(tracker, uri, monkeypatch):
    study_run(tracker)
    run = tracker.study_box("key").run
    path = f"/#/experiments/1/runs/{run.run_id}?"
    assert tracker.address(run).startswith(f"http://127.0.0.1:5000{path}")
    monkeypatch.setenv("MTL_MLFLOW_ADDRESS", "https://mlflow.example/")
    assert tracker.address(run).startswith(f"https://mlflow.example{path}")


@pytest.mark.parametrize(
    ("number", "searched", "name"),
    [
        (7, {"lora.rank": 4, "lora.alpha": 8.0}, "trial 7 · r=4 α=8"),
        (0, {"train.lr": 3.14159e-5, "train.epochs": 16}, "trial 0 · lr=3.14e-05 epochs=16"),
        (1, {}, "trial 1"),
        (None, {}, "training"),
        (2, {"pals.tasks": ["sst", "para"]}, "trial 2 · tasks=sst,para"),
    ],
)
def test_run_names(number, searched, name):
    assert run_name(number, trial_label(searched)) == name


def test_a_study_is_recorded_anew_each_time(tracker, uri, tmp_path):
    parent, box = study_run(tracker), tracker.study_box("key")
    study = optuna.create_study(study_name="sweep", direction="maximize")
    for rank in (1, 2, 4, 8, 16):
        trial = study.ask({"lora.rank": optuna.distributions.IntDistribution(rank, 16)})
        study.tell(trial, 0.5 + rank / 100)
    for _ in range(2):
        tracker.record_study(box, leaderboard(study), study)
        sent(tracker, box)
    client = MlflowClient(uri)
    paths = {file.path for file in client.list_artifacts(parent)}
    assert paths == {
        *("leaderboard.json", "leaderboard.csv", "leaderboard.md", "study.html", "history.png")
    }
    table = json.loads(Path(client.download_artifacts(parent, "leaderboard.json")).read_text())
    assert len(table["data"]) == 5
    tags = client.get_run(parent).data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"])[0]["type"] == "table"
    assert "**Best:** trial 4, score 0.66" in tags["mlflow.note.content"]


def test_a_real_training_ends_with_its_artifacts(tracker, uri, tmp_path):
    import minbert

    config = Config.from_keys(
        {"train.epochs": 2, "train.steps_per_epoch": 12, "lora.rank": 2, "train.lr": 1e-3}
    )
    box = trial_box(tracker)
    recorder, run_id = RunRecorder(box), box.run.run_id
    checkpoints = tmp_path / "checkpoints"
    reports = minbert.train(
        config, cache_dir=tmp_path / "cache", checkpoint_dir=checkpoints, on_step=recorder.on_step
    )
    for report in reports:
        recorder.on_epoch(report)
    pictures = recorder.finish(config, checkpoints, tmp_path / "cache").pictures
    sent(tracker, box)
    assert [picture.name for picture in pictures] == ["sst.png", "para.png", "sts.png"]
    root = Path(MlflowClient(uri).download_artifacts(run_id, ""))
    found = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    assert found >= {
        *(f"confusion_matrix/{task}.{kind}" for task in ("sst", "para") for kind in KINDS),
        *(f"residuals/sts.{kind}" for kind in KINDS),
        *(f"predictions/dev-{task}.csv" for task in ("sst", "para", "sts")),
        "config.toml",
    }
    assert any(name.startswith("model/") and name.endswith(".safetensors") for name in found)
    points = history(uri, run_id)
    best = minbert.load_best(checkpoints)
    counts = minbert.count_parameters(config)
    assert points["parameters/trainable", best.step] == counts.trainable
    assert points["final/epoch", best.step] == best.epoch
    assert points["final/sst_accuracy", best.step] == best.scores["sst_accuracy"]


KINDS = ("html", "png", "csv")
