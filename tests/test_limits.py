"""Trials that take too much: recorded, but no candidates for the best.

Room: mtl/study, mtl/trials.
"""

import optuna
import pytest

from minbert import InputError
from mtl.artifacts.study_figures import study_figures
from mtl.report.comparison import best_and_reference
from mtl.study.load import load_study
from mtl.trials.constraints import exceeded, set_constraints
from mtl.trials.leaderboard import leaderboard
from mtl.trials.recorded import summarize


@pytest.fixture
def study():
    """Three trials: the better they score, the larger they are."""
    study = optuna.create_study(direction="maximize")
    limits = {"trainable_parameters": 200, "minutes": 1.0}
    for number in range(3):
        trial = study.ask()
        known = {"trainable_parameters": 100 * (number + 1), "minutes": 0.5}
        set_constraints(trial, limits, known)
        study.tell(trial, float(number))
    return study


def test_the_best_is_the_best_within_the_limits(study):
    assert summarize(study).best["number"] == 1 == study.best_trial.number  # Optuna agrees
    rows = leaderboard(study)
    assert [(r["number"], r["rank"], r["over"]) for r in rows] == [
        (1, 1, None), (0, 2, None), (2, None, "trainable_parameters")]  # fmt: skip
    assert [exceeded(trial) for trial in study.get_trials()] == [[], [], ["trainable_parameters"]]


def test_the_dashboard_marks_them(study):
    from optuna_dashboard._serializer import serialize_frozen_trial

    shown = [serialize_frozen_trial(1, trial, {}) for trial in study.get_trials()]
    feasible = [all(value <= 0 for value in trial["constraints"]) for trial in shown]
    assert feasible == [True, True, False]


@pytest.mark.parametrize("limit", [50, 250, 1000])
def test_the_figures_show_them_too(limit):
    study = optuna.create_study(direction="maximize")
    for number in range(5):
        trial = study.ask()
        trial.suggest_int("lora.rank", 1, 16)
        trial.suggest_float("lora.alpha", 1.0, 32.0, log=True)
        known = {"trainable_parameters": 100 * (number + 1)}
        set_constraints(trial, {"trainable_parameters": limit}, known)
        study.tell(trial, number / 10)
    figures, omitted = study_figures(study)
    assert len(figures) == 4 and omitted == []
    lines = dict(figures)["Parameters of each trial (one line a trial)"].data
    dotted = [line for line in lines if line.line.dash == "dot" and line.y[0] is not None]
    assert len(dotted) == {50: 5, 250: 3, 1000: 0}[limit]


def test_none_within_the_limits_is_said_so():
    study = optuna.create_study(direction="maximize")
    assert best_and_reference(leaderboard(study)).reason == "no trial is complete"
    trial = study.ask()
    set_constraints(trial, {"minutes": 1}, {"minutes": 2.0})
    study.tell(trial, 0.5)
    assert best_and_reference(leaderboard(study)).reason == "every complete trial is over a limit"


def test_a_profile_s_limits_stand_over_the_file_s(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[limits]\nminutes = 5\nmodel_bytes = 9\n"
                    "[profiles.demo.limits]\nminutes = 2.5\n")
    assert load_study(str(path)).limits == {"minutes": 2.5, "model_bytes": 9}


@pytest.mark.parametrize(
    ("text", "said"),
    [("minute = 1", "mine.toml:2: limits.minute: unknown; did you mean minutes"),
     ("minutes = 0", "mine.toml:2: limits.minutes = 0"),
     ('minutes = "5"', "limits.minutes = '5' does not fit"),
     ("minutes = inf", "limits.minutes = inf")],
)  # fmt: skip
def test_limits_that_are_none(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(f"[limits]\n{text}\n")
    with pytest.raises(InputError) as raised:
        load_study(str(path))
    assert said in str(raised.value)
