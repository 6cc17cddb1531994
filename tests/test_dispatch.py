"""The dispatcher and its local workers, in one process with the test: what becomes of trials.

On SQLite and on PostgreSQL: a study from its beginning to its last trial, the lease, and a study
of twelve trials that is compared between both. What is marked `any_storage` goes through the same
calls of the storage as those do, and asks what is decided above it; `pytest --every-storage` runs
that on both, too.

Room: mtl/dispatch.
"""

import statistics

import pytest

from minbert import InputError
from mtl.dispatch.run import run_study
from mtl.dispatch.view import View
from mtl.storage.home import Home
from mtl.storage.lease import Lease
from mtl.storage.optuna import open_engine, read_storage
from mtl.study.load import load_study
from support.study_runs import Study


class Watcher(View):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ends: dict[int, tuple] = {}
        self.started: list[tuple] = []

    def message(self, text):
        self.said.append(text)

    def trial_started(self, number, label, resumed):
        self.started.append((number, label, resumed))

    def trial_ended(self, number, state, score, reason):
        self.ends[number] = (state, score, reason)


@pytest.fixture
def study(tmp_path, home, storage) -> Study:
    return Study(tmp_path / "study", home)


def _run(study: Study, view: View | None = None, *, jobs=1, name=None, trials=None, **overrides):
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    spec = load_study(str(study.file), overrides=overrides, trials=trials)
    return run_study(spec, Home.resolve(), jobs=jobs, view=view or Watcher(), study_name=name)


def _write(study: Study, **changes) -> None:
    from support.study_runs import write_study

    write_study(study.file.parent, **changes)


def test_a_study_runs_is_left_alone_when_whole_and_goes_on_when_raised(study):
    result = _run(study, trials=1)
    assert (result.total, result.complete, result.new_trials) == (1, 1, 1)
    assert result.best["score"] == study.trials()[0][2]
    _assert_facts(study)

    before = study.query("mlflow.db", "select * from runs")
    view = Watcher()
    again = _run(study, view, trials=1)
    assert again.new_trials == 0 and "nothing to do" in view.said[0]
    assert study.query("mlflow.db", "select * from runs") == before

    raised = _run(study, trials=2)
    assert (raised.total, raised.complete, raised.new_trials) == (2, 2, 1)
    assert study.runs()["study tiny"] == "FINISHED"


def _assert_facts(study: Study) -> None:
    """The first trial carries what is known of it."""
    config = study.attribute(0, "config")
    assert config["train.epochs"] == 3 and config["lora.rank"] in (1, 2, 4)
    assert study.attribute(0, "trainable_parameters") > 0
    assert study.attribute(0, "minutes") > 0
    assert 1 <= study.attribute(0, "best_epoch") <= 3
    scores = {"sst_accuracy", "para_accuracy", "sts_pearson", "score"}
    assert set(study.attribute(0, "scores")) == scores
    run_id = study.attribute(0, "mlflow_run_id")
    sql = "select run_uuid from runs where name like 'trial 0%'"
    assert study.query("mlflow.db", sql) == [(run_id,)]
    sql = "select value_json from trial_system_attributes where key like 'artifacts:%'"
    hanging = [row[0] for row in study.query("optuna.db", sql)]
    pictures = ("sst.png", "para.png", "sts.png")
    assert [sum(name in text for text in hanging) for name in pictures] == [1, 1, 1]
    assert len(list((study.home / "artifacts/optuna").iterdir())) == len(hanging)


@pytest.mark.any_storage
def test_trials_that_raise_or_diverge_fail_alone(study):
    _write(study, epochs=1, more='[[points]]\n"train.lr" = 1e30\n')
    # A folder where the training writes a file: an error that nobody foresaw.
    (study.home / "checkpoints/tiny/1/best.part/x").mkdir(parents=True)
    view = Watcher()
    result = _run(study, view)
    assert [state for _, state, _ in study.trials()] == ["FAIL", "FAIL", "COMPLETE"]
    assert (result.failed, result.complete) == (2, 1)
    for number in (0, 1):
        state, _, reason = view.ends[number]
        assert state == "failed" and study.tag(f"trial {number}", "mtl.reason") == reason
        assert study.runs()[f"trial {number}"] == "FAILED"
        assert study.attribute(number, "reason") == reason
    assert "diverged" in view.ends[0][2] and "step" in view.ends[0][2] and "task" in view.ends[0][2]
    (traceback,) = (study.home / "artifacts/mlflow").rglob("traceback.txt")
    assert study.attribute(1, "mlflow_run_id") in traceback.parts
    assert "Traceback" in traceback.read_text()
    assert view.ends[1][2].split(":")[0] in traceback.read_text()


@pytest.mark.any_storage
def test_hopeless_trials_are_pruned_with_their_artifacts(study):
    # Optuna's median pruner watches five trials before it ends one; of four more that differ in
    # their seed alone, one that is below the median is sure enough.
    points = "".join(f'[[points]]\n"train.seed" = {seed}\n"lora.rank" = 1\n' for seed in range(9))
    _write(
        study,
        trials=9,
        pruner="median",
        epochs=2,
        steps=4,
        sampler="points",
        search='"lora.rank" = [1]',
        more=points,
    )
    result = _run(study)
    states = {number: state for number, state, _ in study.trials()}
    first = dict(
        study.query(
            "optuna.db",
            """select number, intermediate_value from
        trial_intermediate_values join trials using (trial_id) where step = 1""",
        )
    )
    expected = {}
    for number in range(9):
        complete = [first[n] for n in range(number) if states[n] == "COMPLETE"]
        worse = len(complete) >= 5 and first[number] < statistics.median(complete)
        expected[number] = "PRUNED" if worse else "COMPLETE"
    assert states == expected
    assert result.pruned == list(states.values()).count("PRUNED") > 0
    for number in (number for number, state in states.items() if state == "PRUNED"):
        assert study.tag(f"trial {number}", "mtl.state") == "pruned"
        assert study.runs()[f"trial {number}"] == "FINISHED"
        run = study.attribute(number, "mlflow_run_id")
        assert list((study.home / "artifacts/mlflow").glob(f"*/{run}/artifacts/model/*"))


@pytest.mark.any_storage
def test_other_settings_are_another_study(study):
    _run(study, trials=1, train__epochs=1)
    view = Watcher()
    other = {"trials": 1, "train__epochs": 1, "train__dropout": 0.1}
    variant = _run(study, view, **other)
    assert variant.name.startswith("tiny@") and len(variant.name) == len("tiny@") + 6
    assert "train.dropout" in view.said[0]
    again = _run(study, **other)
    assert (again.name, again.new_trials) == (variant.name, 0)
    with pytest.raises(InputError, match=r"--as tiny.*train\.dropout"):
        _run(study, name="tiny", **other)
    with pytest.raises(InputError, match="study name"):
        _run(study, name="../mine", **other)
    assert _run(study, name="mine", **other).name == "mine"
    assert sorted(study.studies()) == sorted(["tiny", variant.name, "mine"])


def test_bad_data_is_refused_before_anything_is_recorded(study):
    (study.file.parent / "data/sts-dev.csv").unlink()
    with pytest.raises(InputError, match=r"sts-dev\.csv"):
        _run(study)
    assert study.studies() == []
    assert not (study.home / "mlflow.db").exists()


def test_a_running_studys_lease_refuses_another(study):
    home = Home.resolve()
    with Lease(open_engine(home), "tiny"), pytest.raises(InputError, match="is being run by"):
        _run(study)
    assert "tiny" not in [s.study_name for s in read_storage(home).get_all_studies()]


@pytest.mark.any_storage
def test_points_come_first_and_cap_the_study(study):
    _write(
        study,
        sampler="points",
        trials=9,
        epochs=1,
        more='[[points]]\n"lora.rank" = 4\n"lora.alpha" = 8.0\n'
        '[[points]]\n"lora.rank" = 0\n"lora.alpha" = 1.0\n',
    )
    view = Watcher()
    result = _run(study, view)
    assert (result.total, result.complete) == (2, 2)
    assert any("2 of 9 trials" in text for text in view.said)
    # A rank of 0 is outside the search: the trial has it, Optuna does not.
    assert [label for _, label, _ in view.started] == ["r=4 α=8", "r=0 α=1"]
    assert [name for number, name, _ in study.params() if number == 1] == ["lora.alpha"]
    assert study.attribute(1, "config")["lora.rank"] == 0


def test_synchronous_batches_give_the_same_study_twice(tmp_path, home, postgres_url):
    """TPE beyond its random start, a pruner, and two workers: every trial, score and verdict; once
    kept in files, once on a server."""
    study = Study(tmp_path / "study", home).furnished()
    _write(study, trials=12, sampler="tpe", pruner="median", epochs=2, steps=2)
    other = study.elsewhere(tmp_path / "other").furnished()
    other.env["MTL_STORAGE"] = postgres_url
    for each in (study, other):
        code, out = each.run_here("--jobs", "2", "--synchronous")
        assert code == 0, out
    assert len(study.trials()) == 12
    assert study.params() == other.params()
    assert study.trials() == other.trials()
    assert study.points() == other.points()
