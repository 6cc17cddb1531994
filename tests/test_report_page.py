"""The report of studies that are odd: empty, huge, all failed, foreign; its words and figures.

Room: mtl/report.
"""

import re
import shlex

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from minbert.common.csv_cells import cell_text
from minbert.evaluation.predictions import TaskPredictions
from mtl.artifacts.axes import log_ticks
from mtl.artifacts.csv_tables import cell
from mtl.report.charts import cost_chart, intervals_chart, pareto
from mtl.report.commands import study_command
from mtl.report.comparison import best_and_reference, disagreements
from mtl.report.markup import decimals, number, table, with_interval
from mtl.report.mistakes import confusion_tables
from mtl.report.page import report_name, write_report_page
from mtl.storage.home import Home
from mtl.study.load import load_study
from mtl.study.overrides import parse_sets
from mtl.trials.leaderboard import leaderboard
from test_report import study, trial


@pytest.fixture
def page(home, tmp_path):
    """Write the report of a study without any MLflow store; return what is said, and the page."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def write(made):
        file = tmp_path / "page.html"
        said = write_report_page(made, Home.resolve(create=False), file)
        return said, file.read_text(encoding="utf-8")

    return write


@pytest.mark.parametrize("trials", [[], [trial(None, state=TrialState.FAIL, reason="<b>no</b>")]])
def test_without_a_complete_trial_there_is_a_page_without_figures(page, trials):
    said, text = page(study(*trials))
    assert (said["best"], said["gain"], said["trials"]) == (None, None, len(trials))
    assert "No trial is complete" in text
    assert "Plotly" not in text and len(text) < 20_000
    assert "<b>no</b>" not in text and ("&lt;b&gt;no&lt;/b&gt;" in text) == bool(trials)


def test_hundreds_of_trials_are_cut_to_what_can_be_read(page):
    trials = [trial(0.4 + i / 5000, rank=2, alpha=1 + i / 20, minutes=1.0 + i, model_bytes=1000 + i)
              for i in range(500)]  # fmt: skip
    said, text = page(study(*trials))
    assert said["best"] == 499 and len(text) < 5_600_000
    assert "And 470 more trials" in text and text.count('<tr class="best">') == 1
    (line,) = [line for line in said["missing"] if line.startswith("learning curves")]
    assert "and 38 more: there is no MLflow store" in line  # of the best 50, 12 are named
    assert "could not be read" in text and "fANOVA" not in text  # one parameter varies


def test_a_study_that_another_tool_made_is_shown_as_far_as_it_goes(page):
    made = optuna.create_study(study_name="foreign", direction="maximize")
    made.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    said, text = page(made)
    assert said["best"] is not None and said["gain"] is None
    assert "No trial has the configuration of a row" in text and "x" in text
    assert any("it has no run in MLflow" in line for line in said["missing"])


def test_demo_scores_come_with_the_warning_and_others_do_not(page):
    assert "Demo scores mean nothing outside the demo" in page(study(trial(0.5)))[1]
    real = trial(0.5)
    real.user_attrs["config"] |= {"backbone": "b", "data.path": "d"}
    assert "Demo scores" not in page(study(real))[1]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lora_sweep@3f2a1b", "lora_sweep@3f2a1b-report.html"),
        ("../../etc/x y", "etc-x-y-report.html"),
        ("..", "study-report.html"),
        ("αβ<script>", "script--report.html"),
        ("n" * 300, "n" * 80 + "-report.html"),
    ],
)
def test_names_of_files_are_safe(name, file):
    assert report_name(name) == file


def rows(*scores, **more):
    """A leaderboard of complete trials with these scores, by number; None is a failed one."""
    made = [trial(score, state=TrialState.FAIL if score is None else TrialState.COMPLETE,
                  **{key: values[i] for key, values in more.items() if values[i] is not None})
            for i, score in enumerate(scores)]  # fmt: skip
    return leaderboard(study(*made))


@pytest.mark.parametrize(
    ("scores", "originals", "best", "reference", "why"),
    [
        ([0.5, 0.7, 0.6], None, 1, 0, "first point"),
        ([0.8, 0.7, 0.75], None, 0, 2, "trial 0 is the best"),
        ([0.6, 0.7, 0.8], [None, None, 0], 2, 1, "another seed of trial 0"),
        ([0.6, 0.9, 0.8], [None, None, 1], 1, 0, "first point"),
        ([None, 0.7, 0.6], None, 1, 2, "trial 0 is not complete"),
        ([0.5], None, 0, None, "no other setting"),
        ([0.5, 0.6], [None, 0], 1, None, "no other setting"),
        ([None], None, None, None, "no trial is complete"),
    ],
)
def test_what_the_best_is_read_against(scores, originals, best, reference, why):
    pair = best_and_reference(rows(*scores, replicate_of=originals or [None] * len(scores)))
    found = [row and row["number"] for row in pair[:2]]
    assert found == [best, reference] and why in pair.reason


def predictions(task, labels, values):
    count = len(labels)
    return TaskPredictions(
        task=task,
        ids=[str(i) for i in range(count)],
        texts=[("a", "b")] * count,
        labels=np.array(labels, np.float32),
        outputs=np.zeros((count, 1)),
        values=np.array(values, np.float32),
    )


def test_disagreements_are_counted_and_the_largest_come_first():
    one = {"para": predictions("para", [1, 0, 1, 0], [0.4, 0.1, 0.1, 0.2]),
           "sts": predictions("sts", [1, 2, 3], [1, 4, 3.5])}  # fmt: skip
    two = {"para": predictions("para", [1, 0, 1, 0], [0.6, 0.2, 0.9, 0.9]),
           "sts": predictions("sts", [1, 2, 3], [2, 2, 2.5])}  # fmt: skip
    found = disagreements(one, two)
    assert (found["para"]["other_right"], found["para"]["reference_right"]) == (2, 1)
    assert [example["id"] for example in found["para"]["examples"]] == ["2", "3", "0"]
    assert [example["id"] for example in found["sts"]["examples"]] == ["1", "0"]
    assert found["sts"]["examples"][0] | {"texts": None} == {
        "id": "1", "texts": None, "label": 2.0, "reference": 4.0, "other": 2.0
    }  # fmt: skip
    assert len(disagreements(one, two, most=1)["para"]["examples"]) == 1


def test_the_difference_of_matrices_is_in_points_of_the_row():
    one = predictions("para", [0, 0, 0, 0, 1], [0.9, 0.9, 0.1, 0.1, 0.9])
    two = predictions("para", [0, 0, 0, 0, 1], [0.1, 0.1, 0.1, 0.9, 0.9])
    html = confusion_tables((("one", one), ("two", two)))
    captions = re.findall(r"<caption>(.*?)</caption>", html)
    assert captions == ["one", "two", "difference, in points"]
    cells = re.findall(r"<td[^>]*>([^<]+)", html)
    assert cells[:4] == ["50%", "50%", "0%", "100%"]
    assert cells[8:] == ["+25", "−25", "0", "0"]


def test_the_pareto_front_holds_what_nothing_beats():
    points = [(1, 0.5, "a"), (1, 0.6, "b"), (2, 0.6, "c"), (3, 0.9, "d"), (4, 0.8, "e")]
    assert [name for _, _, name in pareto(points)] == ["b", "d"]
    assert pareto([]) == []


def test_figures_that_would_say_nothing_are_none():
    same = rows(0.5, 0.6, minutes=[2.0, 2.0])
    assert cost_chart(same, "minutes", "minutes") is None
    assert intervals_chart(same) is None  # these have no intervals
    different = rows(0.5, 0.6, minutes=[2.0, 90.0])
    chart = cost_chart(different, "minutes", "minutes")
    assert chart.layout.xaxis.type == "log" and chart.layout.xaxis.title.text == "minutes"
    assert list(chart.data[1].x) == [2.0, 90.0]


def test_logarithmic_ticks():
    assert log_ticks(1.0, 32.0)["ticktext"][:6] == ["1", "2", "5", "10", "20", "50"]
    assert log_ticks(1e-5, 1e-2)["ticktext"] == ["1e-05", "0.0001", "0.001", "0.01"]


@pytest.mark.parametrize(
    ("half", "places"), [(0.13, 2), (0.021, 3), (0.0046, 4), (0.00001, 4), (7.0, 2)]
)
def test_digits_are_those_that_the_interval_supports(half, places):
    assert decimals([half]) == places
    assert decimals([]) == decimals([0.0]) == 3


def test_numbers_and_tables():
    assert number(-0.1234) == "−0.123" and number(0.5, 2, signed=True) == "+0.50"
    assert number(None) == "–"
    assert with_interval(0.5, 0.4, 0.6, 2) == "0.50 <small>(0.40 to 0.60)</small>"
    html = table(("<a", "n>"), [["x", "1"], ("best", ["y", "2"])])
    assert "&lt;a<" in html and '<tr class="best"><td>y</td><td class="number">2</td>' in html


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_cells_are_read_as_they_were_written(start):
    assert cell_text(cell(f"{start}1")) == f"{start}1"
    assert cell_text("it's") == "it's" and cell_text("'quoted'") == "'quoted'"


def settings_of(name, **options):
    made = load_study(name, **options)
    attributes = {"settings": made.settings, "profile": made.profile}
    return study(trial(0.5), trial(0.6), **attributes), made


@pytest.mark.parametrize(
    "overrides", [{}, {"train.lr": 3e-4, "pals.tasks": ["sst"], "backbone": "b c"}]
)
def test_the_command_means_the_same_study(overrides):
    made, spec = settings_of("lora_sweep", overrides=overrides)
    words = shlex.split(study_command(made, leaderboard(made)))
    assert words[:4] == ["mtl", "study", "run", "lora_sweep"]
    assert words[words.index("--trials") + 1] == "2"
    assert words[words.index("--as") + 1] == "sweep"
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    profile = words[words.index("--profile") + 1]
    again = load_study("lora_sweep", profile=profile, overrides=parse_sets(sets))
    assert again.settings == spec.settings
    assert set(parse_sets(sets)) == set(overrides)


def test_a_study_of_another_file_has_no_command():
    assert study_command(study(trial(0.5)), []) is None
    other = {"config": {}, "search": {"train.lr": {"low": 1.0, "high": 2.0}}}
    assert study_command(study(trial(0.5), settings=other), []) is None
