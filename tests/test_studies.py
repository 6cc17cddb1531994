"""Every shipped study runs to its end: on the demo, and some on the paper's data.

Room: mtl/study.
"""

import csv
import json
from itertools import islice

import pytest

from support.commands import sets
from support.homes import furnish
from support.paths import REPOSITORY

STUDIES = sorted(file.stem for file in (REPOSITORY / "studies").glob("*.toml"))
SHORT = ("train.epochs=1", "train.steps_per_epoch=2", "train.batch_size=4")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """One home for all studies of this file: each new one takes seconds."""
    folder = tmp_path_factory.mktemp("studies")
    furnish(folder / "home")
    return folder


def test_every_table_and_proposal_of_the_paper_has_one():
    assert set(STUDIES) == {
        "lora_sweep", "pals", "smart_sweep", "combined", "baselines", "task_scheduling",
        "scheduler_exponent", "joint_search", "methods",
    }  # fmt: skip


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs_to_its_end_on_the_demo(here, shared_home, name):
    outcome = here(
        shared_home, "study", "run", name, "--trials", 2, "--jobs", 1, "--json",
        *sets(*SHORT, "train.eval_limit=20"),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.json["complete"] + outcome.json["pruned"] == 2


@pytest.fixture(scope="module")
def some_real_data(tmp_path_factory, real_data):
    """The beginnings of the paper's files: enough for some steps, and soon evaluated."""
    folder = tmp_path_factory.mktemp("real")
    for file in real_data.glob("*.csv"):
        with file.open(encoding="utf-8", newline="") as stream:
            (folder / file.name).write_text("".join(islice(stream, 50)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["baselines", "pals", "smart_sweep"])
def test_a_study_runs_on_the_paper_s_data(here, shared_home, some_real_data, real_backbone, name):
    real = (f"data.path={some_real_data}", f"backbone={real_backbone}", "train.eval_limit=12")
    outcome = here(
        shared_home, "study", "run", name, "--as", f"{name}-real", "--trials", 1, "--jobs", 1,
        "--json", *sets(*SHORT, *real),
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert 0 < outcome.json["best"]["score"] < 1


@pytest.mark.usefixtures("furnished")
def test_the_best_is_scored_on_the_whole_dev_sets(here, tmp_path):
    """Whatever part of them served while exploring."""
    outcome = here(tmp_path, "train", "--json", *sets(*SHORT, "train.eval_limit=20"))
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    (file,) = (tmp_path / "home").glob(f"**/{found['run_id']}/artifacts/predictions/dev-sst.csv")
    rows = list(csv.DictReader(file.open(encoding="utf-8")))
    assert len(rows) > 200
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert found["scores"]["sst_accuracy"] == pytest.approx(right / len(rows))
