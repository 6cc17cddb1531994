"""The leaderboard of a study, its export, and what hangs on the study's run.

Room: mtl/artifacts, mtl/trials.
"""

import csv
import io
import json
from html.parser import HTMLParser

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image

from minbert import InputError
from mtl.artifacts.csv_tables import cell, export_csv
from mtl.artifacts.study import describe_study, leaderboard_table, study_page, write_study_files
from mtl.trials.leaderboard import leaderboard

SPACE = {
    "lora.rank": CategoricalDistribution([1, 2, 4, 8]),
    "lora.alpha": FloatDistribution(1.0, 32.0, log=True),
}


def trial(score=None, rank=4, alpha=8.0, state=TrialState.COMPLETE, **attributes):
    params = {"lora.rank": rank, "lora.alpha": alpha}
    config = params | {"train.lr": 1.23456789e-5, "backbone": "demo", "pals.tasks": ["sst"]}
    known = {"config": config, "mlflow_run_id": f"run{rank}", **attributes}
    if score is not None:
        known["scores"] = {"sst_accuracy": 0.4, "para_accuracy": 0.7, "sts_pearson": -0.1}
    steps = {} if score is None else {100: score}
    value = score if state in (TrialState.COMPLETE, TrialState.PRUNED) else None
    return create_trial(
        state=state,
        value=value,
        params=params,
        distributions=SPACE,
        user_attrs=known,
        intermediate_values=steps,
    )


def study(*trials, **attributes):
    made = optuna.create_study(study_name="sweep", direction="maximize")
    for key, value in attributes.items():
        made.set_user_attr(key, value)
    made.add_trials(trials)
    return made


@pytest.fixture
def mixed():
    """Six trials, one of each kind and two of equal score."""
    return study(
        trial(0.5, rank=1, minutes=0.5, trainable_parameters=1000, best_epoch=3),
        trial(0.3, rank=2, state=TrialState.PRUNED),
        trial(0.7, rank=8, alpha=16.0),
        trial(None, state=TrialState.FAIL, reason="=the loss became nan at step 3"),
        trial(0.7, rank=4),
        trial(0.2, state=TrialState.RUNNING),
        description="LoRA's <rank> | alpha",
        profile="demo",
    )


def test_best_first_then_pruned_running_failed(mixed):
    rows = leaderboard(mixed)
    assert [(row["rank"], row["number"], row["state"]) for row in rows] == [
        (1, 2, "complete"),
        (2, 4, "complete"),
        (3, 0, "complete"),
        (None, 1, "pruned"),
        (None, 5, "running"),
        (None, 3, "failed"),
    ]


def test_a_row_holds_what_is_known_of_a_trial(mixed):
    row = leaderboard(mixed)[2]
    assert row["score"] == 0.5
    assert (row["sst_accuracy"], row["para_accuracy"], row["sts_pearson"]) == (0.4, 0.7, -0.1)
    assert (row["minutes"], row["trainable_parameters"], row["best_epoch"]) == (0.5, 1000, 3)
    assert row["run_id"] == "run1"
    assert row["params"] == {"lora.rank": 1, "lora.alpha": 8.0}
    assert row["config"]["train.lr"] == 1.23456789e-5
    assert json.loads(json.dumps(row)) == row
    assert leaderboard(mixed)[4]["score"] == 0.2  # running: what it reached
    assert leaderboard(mixed)[5]["score"] is None


def test_what_a_point_sets_beside_the_search_is_told_too():
    no_lora = create_trial(
        value=0.4,
        params={"lora.alpha": 1.0},
        distributions={"lora.alpha": SPACE["lora.alpha"]},
        user_attrs={"config": {"lora.rank": 0, "lora.alpha": 1.0, "backbone": "demo"}},
    )
    best, baseline = leaderboard(study(no_lora, trial(0.5)))
    assert baseline["params"] == {"lora.rank": 0, "lora.alpha": 1.0}
    assert best["params"]["lora.rank"] == 4
    assert "backbone" not in best["params"]


def test_csv_holds_every_trial_and_key(mixed, tmp_path):
    assert export_csv(mixed, tmp_path / "new" / "out.csv") == 6
    with (tmp_path / "new" / "out.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["number"] for row in rows] == ["2", "4", "0", "1", "5", "3"]
    best = rows[0]
    assert (best["state"], best["score"], best["run_id"]) == ("complete", "0.7", "run8")
    assert float(best["config.train.lr"]) == 1.23456789e-5
    assert json.loads(best["config.pals.tasks"]) == ["sst"]
    assert (best["config.lora.rank"], best["config.lora.alpha"]) == ("8", "16.0")
    assert best["sts_pearson"] == "-0.1"  # a number is no formula
    assert rows[-1]["reason"] == "'=the loss became nan at step 3"
    assert rows[-1]["score"] == ""


def test_csv_goes_to_a_stream_too(mixed):
    stream = io.StringIO()
    export_csv(mixed, stream)
    assert len(list(csv.reader(io.StringIO(stream.getvalue())))) == 7


def test_a_csv_that_cannot_be_written_is_one_clear_line(mixed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out.csv cannot be written: "):
        export_csv(mixed, tmp_path / "file" / "out.csv")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_text_that_a_spreadsheet_would_run_is_quoted(start):
    assert cell(f"{start}1+1") == f"'{start}1+1"
    assert cell(f"a{start}b") == f"a{start}b"


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self._inside = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag == "h2"

    def handle_data(self, data):
        if self._inside:
            self.headings.append(data)
            self._inside = False


@pytest.mark.parametrize(
    ("trials", "figures"),
    [
        ([], 0),
        ([trial(None, state=TrialState.FAIL)], 0),
        ([trial(0.5)], 1),
        ([trial(0.5), trial(0.5)], 1),
        ([trial(0.5, rank=1), trial(0.6, rank=2)], 2),
        ([trial(0.5, rank=1), trial(0.6, rank=2, alpha=2.0)], 3),
        ([trial(0.1 * r, rank=r, alpha=9.0 - r) for r in (1, 2, 4, 8)], 4),
    ],
)
def test_the_studys_page_has_the_figures_that_say_something(trials, figures):
    text = study_page(study(*trials))
    assert len(_Page(text).headings) == figures
    assert text.count("Plotly.newPlot(") == figures + (figures > 0) * _in_library()
    assert len(text.encode()) < 6_000_000
    assert not [a for tag, a in _Page(text).tags if tag == "script" and "src" in a]


def _in_library():
    from plotly.offline import get_plotlyjs

    return get_plotlyjs().count("Plotly.newPlot(")


def test_figures_take_high_scores_to_be_the_good_ones():
    # The score follows the rank alone; looked at upside down, alpha would seem to matter.
    trials = [
        trial(0.1 * rank + 0.001 * i, rank=rank, alpha=1.0 + 7 * i)
        for rank in (1, 2, 4, 8)
        for i in range(4)
    ]
    from mtl.artifacts.study_figures import study_figures

    figures = dict(study_figures(study(*trials))[0])
    bars = figures["How much each parameter matters"].data[0]
    assert bars.y[bars.x.index(max(bars.x))] == "lora.rank"
    scale = figures["Parameters of each trial (one line a trial)"].data[-1].marker
    assert scale.reversescale is False  # the best lines are the darkest


def test_importances_are_learned_or_said_not_to_be():
    """Points that came later widen a range, and may lie outside of what is searched."""
    from mtl.artifacts.study_figures import study_figures

    alone = [trial(0.1 * rank, rank=rank, alpha=9.0 - rank) for rank in (1, 2, 4, 8)]
    for each, left in zip(alone, 2 * ["lora.rank"] + 2 * ["lora.alpha"], strict=True):
        each.distributions = {left: each.distributions[left]}
        each.params = {left: each.params[left]}
    same = [trial(0.5, rank=rank, alpha=9.0 - rank) for rank in (1, 2, 4, 8)]
    wide = [trial(0.1 * rank, rank=rank, alpha=9.0 - rank) for rank in (1, 2, 4, 8)]
    wide[0].distributions = wide[0].distributions | {
        "lora.alpha": optuna.distributions.FloatDistribution(0.1, 99.0)
    }
    for trials, said in (
        (alone, ["Importances need 4 complete trials that have every parameter; there are 0."]),
        (same, ["All trials have the same score: no parameter matters."]),
        (wide, []),
    ):
        figures, omitted = study_figures(study(*trials))
        assert omitted == said and len(figures) == (3 if said else 4)


def test_of_many_trials_a_figure_shows_some_and_every_best_under_their_own_numbers(monkeypatch):
    from mtl.artifacts.study_figures import study_figures

    monkeypatch.setattr("mtl.artifacts.study_figures.DRAWN", 3)
    trials = [trial(0.5 - 0.01 * i, rank=1 + i % 2, alpha=1.0 + i) for i in range(9)]
    trials[1] = trial(None, state=TrialState.FAIL)
    trials[7] = trial(0.9, rank=4, alpha=3.0)
    figures = dict(study_figures(study(*trials))[0])
    of = " (4 of 8 trials: every best, others evenly chosen)"
    chosen = (0, 3, 6, 7)
    dots, best, *_ = figures["Score of each trial" + of].data
    assert tuple(dots.x) == tuple(best.x) == chosen
    assert list(best.y) == [0.5, 0.5, 0.5, 0.9]
    for slice_ in figures["Score by parameter" + of].data:
        by_number = dict(zip(slice_.marker.color, slice_.y, strict=True))
        assert by_number == pytest.approx({0: 0.5, 3: 0.47, 6: 0.44, 7: 0.9})


def test_the_description_says_what_was_searched_and_found(mixed):
    text = describe_study(leaderboard(mixed), mixed)
    assert "LoRA's &lt;rank&gt; \\| alpha" in text
    assert "mean nothing outside the demo" in text
    assert "`lora.rank`, `lora.alpha`" in text
    assert "3 complete, 1 pruned, 1 running, 1 failed" in text
    assert "trial 2, score 0.700 (`lora.rank` = 8, `lora.alpha` = 16.0)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 8 and len({line.count("|") for line in lines}) == 1


def test_a_long_leaderboard_fits_into_a_tag():
    many = study(*[trial(0.5, rank=2, alpha=1 + i / 100) for i in range(300)])
    text = describe_study(leaderboard(many), many)
    assert len(text) <= 8000
    assert "and 280 more in `leaderboard.csv`" in text


def test_nothing_yet_is_described_too():
    text = describe_study([], study(description="x"))
    assert "**Trials:** none yet" in text


def test_files_of_a_study(mixed, tmp_path):
    rows = leaderboard(mixed)
    write_study_files(rows, mixed, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        *("leaderboard.csv", "leaderboard.md", "study.html", "history.png")
    }
    assert (tmp_path / "leaderboard.md").read_text().count("\n| ") == 8
    with Image.open(tmp_path / "history.png") as picture:
        assert picture.size[0] > 600
    table = leaderboard_table(rows)
    assert table["columns"][:4] == ["rank", "trial", "r", "α"]
    assert all(len(line) == len(table["columns"]) for line in table["data"])


def test_a_study_without_scores_has_no_history(tmp_path):
    empty = study(trial(None, state=TrialState.FAIL, reason="out of memory"))
    write_study_files(leaderboard(empty), empty, tmp_path)
    assert not (tmp_path / "history.png").exists()
    assert "nothing to draw" in (tmp_path / "study.html").read_text()
