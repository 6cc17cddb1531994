"""The paper's tables as data, the studies that run them, and the counts they print.

Room: mtl/report.
"""

import re
import tomllib
from types import SimpleNamespace

import pytest

from minbert import Config, count_parameters
from minbert.evaluation.metrics import score
from mtl.report.comparison import Pair
from mtl.report.contents import StudyReport
from mtl.report.paper_section import paper_section
from mtl.report.paper_tables import beside_paper, method, printed_errors
from mtl.study.load import load_study
from support.paths import REPOSITORY

FOLDER = REPOSITORY / "platform" / "mtl" / "report" / "paper"
TABLES = {number: tomllib.loads((FOLDER / f"table{number}.toml").read_text("utf-8"))
          for number in range(1, 7)}  # fmt: skip
ROWS = [(n, row) for n, table in TABLES.items() for row in table["rows"]]


@pytest.mark.parametrize(("number", "row"), ROWS, ids=lambda v: v if isinstance(v, int) else None)
def test_averages_are_those_of_the_scores(number, row):
    """As far as three digits go; configuration 1 of table 4 is misprinted."""
    printed = {"1: shared PALs + SMART": 0.7845}.get(row["label"], row["score"])
    assert score(row["sst"], row["para"], row["sts"]) == pytest.approx(printed, abs=1.2e-3)


@pytest.mark.parametrize("row", [r for _, r in ROWS if "trainable" in r], ids=lambda r: r["label"])
def test_printed_parameters_are_ours(row):
    config = Config.from_keys({"backbone": "bert-base-uncased"} | row["keys"])
    ours = 115_469_275 if "Mixed" in row["label"] else row["trainable"]
    assert count_parameters(config).trainable == ours


@pytest.mark.parametrize("number", TABLES)
def test_a_study_tries_the_rows_of_its_table_in_their_order(number):
    table = TABLES[number]
    spec = load_study(table["study"], profile="paper")
    tried = [spec.config_of(point) for point in spec.points]
    wanted = [spec.config_of(row["keys"]) for row in table["rows"]]
    assert tried == wanted
    assert spec.trials >= len(wanted)


# ---- ours beside them --------------------------------------------------------------------------


def trial(number, config, score=0.5, **more):
    """A complete trial as the leaderboard has it."""
    values = {"sst_accuracy": score - 0.1, "para_accuracy": score, "sts_pearson": 2 * score}
    values["score"] = score
    spread = {name: {"low": v - 0.02, "high": v + 0.03} for name, v in values.items()}
    row = {"number": number, "state": "complete", "label": None, "replicate_of": None}
    row |= {"params": {}, "config": config, "minutes": 2.0, "trainable_parameters": 599_068}
    return row | values | {"estimates": spread} | more


def study_trials(name, profile="paper", **overrides):
    spec = load_study(name, profile=profile, overrides=overrides)
    return [trial(i, spec.config_of(point).to_keys()) for i, point in enumerate(spec.points)]


@pytest.mark.parametrize("number", TABLES)
def test_each_row_finds_its_own_trial_and_no_other(number):
    name = TABLES[number]["study"]
    (table,) = [t for t in beside_paper(name, study_trials(name)) if t.number == number]
    assert [row.ours.numbers for row in table.rows] == [[i] for i in range(len(table.rows))]
    assert table.differing_budget() == {}


def test_methods_has_rows_of_five_tables():
    """Of whatever budget: the demo's batches and learning rates are not the paper's."""
    tables = beside_paper("methods", study_trials("methods", profile="demo"))
    found = {t.number: {row.label: row.ours.numbers for row in t.matched} for t in tables}
    assert found == {
        1: {"FM (baseline)": [4], "LLL + LoRA r=4, α=8": [5]},
        2: {"PALs shared V^E/V^D": [6]},
        4: {"1: shared PALs + SMART": [7]},
        5: {"SST alone": [0], "PARA alone": [1], "STS alone": [2],
            "Multi-task, a random task each epoch": [3]},
        6: {"Annealed": [4]},
    }  # fmt: skip
    budget = tables[0].differing_budget()
    assert budget["backbone"] == (["bert-base-uncased"], ["demo"])
    assert budget["train.lr"] == ([1e-5], [2e-4])
    assert "train.weight_decay" not in budget


def test_a_studys_own_table_is_there_before_any_row_was_run():
    (table,) = beside_paper("lora_sweep@3f2a1b", [])
    assert table.number == 1 and not table.matched
    assert beside_paper("mine", []) == []


def test_what_has_no_effect_does_not_tell_methods_apart():
    plain = Config().to_keys()
    assert method(plain) == method(plain | {"lora.alpha": 9.0, "smart.alpha": 0.5})
    assert method(plain) == method(plain | {"pals.placement": "alternative", "train.seed": 1})
    assert method(plain) != method(plain | {"lora.rank": 1})
    assert method(plain) != method(plain | {"schedule.anneal": 0.5})
    one = plain | {"schedule.tasks": ["sst"]}
    assert method(one) == method(one | {"schedule.policy": "random"})


def test_a_difference_carries_our_interval():
    rows = study_trials("lora_sweep")
    (table,) = [t for t in beside_paper("lora_sweep", rows) if t.number == 1]
    gap = table.rows[6].ours.values["score"].minus(0.771)
    assert gap.value == pytest.approx(0.5 - 0.771)
    assert (gap.low, gap.high) == pytest.approx((0.48 - 0.771, 0.53 - 0.771))


def test_seeds_give_mean_deviation_and_students_interval():
    config = study_trials("lora_sweep")[6]["config"]
    rows = [trial(6, config, 0.6), trial(7, config, 0.7, replicate_of=6),
            trial(8, config, 0.8, replicate_of=6), trial(9, config, 0.65)]  # fmt: skip
    (table,) = beside_paper("lora_sweep", rows)
    (row,) = table.matched
    assert row.label == "LLL + LoRA r=4, α=8"
    assert (row.ours.numbers, row.ours.settings) == ([6, 7, 8], 2)
    score_ = row.ours.values["score"]
    assert (score_.value, score_.deviation) == pytest.approx((0.7, 0.1))
    half = 4.302653 * 0.1 / 3**0.5  # Student's t with two degrees of freedom
    assert (score_.low, score_.high) == pytest.approx((0.7 - half, 0.7 + half), abs=1e-6)


def test_a_row_that_names_its_batch_takes_the_trials_of_that_batch():
    rows = study_trials("combined")
    shared = rows[2]["config"]
    (table,) = [t for t in beside_paper("combined", rows) if t.number == 4]
    assert table.rows[2].ours.numbers == [2]
    rows.append(trial(3, shared | {"train.batch_size": 16}))
    (table,) = [t for t in beside_paper("combined", rows) if t.number == 4]
    assert table.rows[2].ours.numbers == [2]


def test_table_7_is_as_printed():
    """Its RMSE is the root of its MSE; R2 and MSE give one variance of the labels."""
    rows = {row["label"]: row for row in printed_errors()["rows"]}
    assert rows["Baseline"]["mse"] == [1.023, 0.012] and rows["Baseline"]["mae"] == [0.808, 0.006]
    assert rows["Final"]["mae"] == [0.66, 0.004] and rows["Final"]["r2"] == [0.67, 0.002]
    for row in rows.values():
        assert row["rmse"][0] == pytest.approx(row["mse"][0] ** 0.5, abs=6e-4)
    spread = [row["mse"][0] / (1 - row["r2"][0]) for row in rows.values()]
    assert spread[0] == pytest.approx(spread[1], rel=2e-3)


def section(rows, **more):
    """The section of a study with these trials, as text."""
    study = SimpleNamespace(user_attrs={}, study_name="lora_sweep")
    report = StudyReport(study, rows, Pair(None, None, ""), **more)
    report.paper = beside_paper("lora_sweep", rows)
    return " ".join(re.sub(r"<[^>]+>", " ", paper_section(report)).split())


def test_parameters_are_compared_on_the_papers_encoder_alone():
    rows = study_trials("lora_sweep")
    assert "another encoder" not in section(rows)
    assert section(rows).count("equal") == 2  # the two rows of rank 4 that LoRA alone trains
    for row in rows:
        row["config"]["backbone"] = "/somewhere/all-MiniLM-L6-v2"
    assert "equal" not in section(rows) and section(rows).count("another encoder") == 11


def test_rows_that_were_not_run_and_what_differs_are_said():
    rows = study_trials("lora_sweep", **{"train.lr": 3e-4})[:2]
    text = section(rows, datasets={"sst/train": 10_245, "sst/dev": 500, "sts/train": 6000})
    assert text.count("not run here") == 9 + 3  # the full model is a row of table 6 too
    assert "train.lr: ours 0.0003; the paper 1e-05" in text and "train.dropout" not in text
    assert "sst/train 10,245 (the same)" in text and "sst/dev 500 (1,101)" in text
    assert "sts/train 6,000 (the paper does not say)" in text
    assert "does not name; they cannot be compared" in text
