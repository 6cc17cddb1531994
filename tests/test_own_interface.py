"""What a person does with Optuna's own interface, before, between and while a study runs: a trial
that is queued, added, asked for or told by somebody else, a study that is deleted.

Room: mtl/trials.
"""

import json

import optuna
import pytest

from support.study_runs import Study, wait_until

TWO_POINTS = """
[[points]]
label = "first"
"lora.rank" = 1
"lora.alpha" = 8.0
[[points]]
label = "second"
"lora.rank" = 2
"lora.alpha" = 8.0
"""


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def opened(study: Study) -> optuna.Study:
    """The study as somebody else opens it."""
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{study.home}/optuna.db")


def run_states(study: Study) -> dict[str, tuple[str, str | None]]:
    """Status and reason of each trial's run, by its name up to the parameters."""
    return {name: (status, study.tag(name, "mtl.reason")) for name, status in study.runs().items()}


def test_what_is_queued_between_two_runs_is_a_trial_of_its_own(tmp_path, home):
    study = Study(tmp_path / "study", home, steps=1, epochs=1, more=TWO_POINTS).furnished()
    assert study.run_here("--jobs", "1", "--trials", "1")[0] == 0
    theirs = opened(study)
    elsewhere = theirs.ask()  # in a notebook
    theirs.enqueue_trial({"lora.rank": 4, "train.lr": 0.5})
    theirs.enqueue_trial({"lora.rank": 3, "lora.alpha": 100.0})
    theirs.enqueue_trial({"lora.rnk": 4})
    theirs.enqueue_trial({"lora.rank": "four"})
    theirs.enqueue_trial({"data.path": "/elsewhere"})
    theirs.add_trial(
        optuna.trial.create_trial(value=0.99, user_attrs={"minutes": "few", "label": 3})
    )

    code, said = study.run_here("--jobs", "1", "--trials", "2")
    assert code == 1, said  # some have failed
    trials = theirs.get_trials()
    states = [trial.state.name for trial in trials]
    assert states == [
        *("COMPLETE", "RUNNING", "COMPLETE", "COMPLETE", "FAIL", "FAIL", "FAIL"),
        *("COMPLETE", "COMPLETE"),
    ]
    assert [study.attribute(n, "label") for n in range(9)] == ["first", *[None] * 6, 3, "second"]
    assert trials[2].params["lora.rank"] == 4 and "lora.alpha" in trials[2].params
    config = [study.attribute(number, "config") for number in range(9)]
    assert config[2]["train.lr"] == 0.5 and trials[2].user_attrs["train.lr"] == 0.5
    assert (config[3]["lora.rank"], config[3]["lora.alpha"]) == (3, 100.0)
    reasons = [trial.user_attrs.get("reason", "") for trial in trials]
    assert "did you mean lora.rank?" in reasons[4]
    assert "'four'" in reasons[5] and "none of the study's" in reasons[6]
    assert config[4:8] == [None] * 4 and config[elsewhere.number] is None
    assert trials[1].system_attrs == {}  # nobody touched what is theirs
    assert f"trial 4 failed ({reasons[4]})" in said

    found = json.loads(study.mtl("status", "tiny", "--json")[1])
    assert (found["complete"], found["failed"], found["total"]) == (5, 3, 9)
    assert found["best"]["number"] in (0, 2, 3, 8)  # of 7, somebody else has said the score
    for verb in ("status", "best", "export", "report"):
        assert study.mtl(verb, "tiny")[0] == 0
    code, said = study.run_here("--jobs", "1", "--trials", "2")
    assert "has its 2 trials: nothing to do" in said and code == 1


def test_what_is_done_to_a_running_study(tmp_path, home):
    study = Study(tmp_path / "study", home, steps=100, epochs=500, more=TWO_POINTS).furnished()
    study.start("--jobs", "1", "--trials", "2")
    study.wait_for("trial 0 epoch 1:")
    theirs = opened(study)
    theirs.tell(0, state=optuna.trial.TrialState.FAIL)
    theirs.enqueue_trial({"lora.rank": 4, "lora.alpha": 2.0})
    said = study.wait_for("trial 1 started")
    assert "trial 0 failed (told in Optuna by somebody else)" in said
    assert "started: r=4 α=2" in said
    theirs.tell(1, 0.125)
    said = study.wait_for("trial 2 started: second")
    assert "trial 1 complete: score 0.125 (told in Optuna by somebody else)" in said
    wait_until(lambda: len(run_states(study)) == 4)
    told = "told in Optuna by somebody else"
    states = run_states(study)
    assert states["trial 0"] == ("FAILED", told) and states["trial 1"] == ("FINISHED", told)
    assert not any((home / "checkpoints" / "tiny" / str(number)).exists() for number in (0, 1))

    # Told while nobody dispatches: the run, which was killed, ends as the trial was told.
    study.process.terminate()
    study.end()
    theirs.tell(2, state=optuna.trial.TrialState.PRUNED)
    code, said = study.run_here("--jobs", "1", "--trials", "2")
    assert code == 1 and "nothing to do" in said
    assert run_states(study)["trial 2"] == ("FINISHED", told)
    assert study.tag("trial 2", "mtl.state") == "pruned"


def test_a_study_that_is_deleted_ends_in_one_line_and_begins_anew(tmp_path, home):
    study = Study(tmp_path / "study", home, steps=100, epochs=500, more=TWO_POINTS).furnished()
    study.start("--jobs", "1", "--trials", "1")
    study.wait_for("trial 0 epoch 1:")
    optuna.delete_study(study_name="tiny", storage=f"sqlite:///{home}/optuna.db")
    code, said = study.end()
    assert code == 2 and "tiny was deleted or renamed" in said and "Traceback" not in said
    assert study.runs()["trial 0"] == "KILLED"

    code, said = study.run_until_trained(0, "--jobs", "1", "--trials", "1")
    assert code == 1 and "trial 0 epoch 1:" in said
    assert "resumed" not in said  # from the other's checkpoint
    assert len(study.run_ids()) == 4


@pytest.mark.parametrize(
    ("direction", "trials", "why"),
    [("minimize", 0, "does not maximise"), ("maximize", 1, "were not run by mtl")],
)
def test_a_study_of_the_name_that_something_else_made_is_left_alone(
    tmp_path, home, direction, trials, why
):
    study = Study(tmp_path / "study", home, steps=1, epochs=1).furnished()
    storage = f"sqlite:///{home}/optuna.db"
    theirs = optuna.create_study(study_name="tiny", storage=storage, direction=direction)
    for _ in range(trials):
        theirs.add_trial(optuna.trial.create_trial(value=1.0))
    code, said = study.run_here("--jobs", "1")
    assert code == 2 and why in said and "--as NAME" in said
    assert theirs.user_attrs == {} and len(theirs.get_trials()) == trials
