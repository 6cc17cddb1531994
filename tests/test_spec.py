"""Study files: what they mean, and every fault said in one line with file, line and key.

Room: mtl/study.
"""

import os
from pathlib import Path

import pytest

from minbert import InputError
from mtl.study.load import list_studies, load_study
from mtl.study.names import check_name
from mtl.study.overrides import parse_sets
from mtl.study.search import Choice, FloatRange, IntRange
from mtl.study.spec import differing_keys

STUDY = """
description = "a study"
sampler = "tpe"
trials = 16
seed = 7

[config]
"train.mode" = "last-linear-layer"

[search]
"lora.rank" = [1, 2, 4]
"lora.alpha" = { low = 1.0, high = 32.0, log = true }

[[points]]
"lora.rank" = 4
"lora.alpha" = 8.0

[[points]]
"lora.rank" = 0
"lora.alpha" = 1.0

[profiles.demo]
trials = 5
"train.epochs" = 3
[profiles.demo.train]
lr = 1e-3

[profiles.long]
trials = 100
pruner = "median"
[profiles.long.search]
"train.batch_size" = { low = 4, high = 16, step = 4 }
"""


@pytest.fixture
def load(tmp_path: Path):
    """Write a study file and load it."""

    def write_and_load(text: str = STUDY, **options):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load_study(str(path), **options)

    return write_and_load


def test_profile_lies_over_the_file(load):
    spec = load()
    assert (spec.name, spec.profile, spec.trials, spec.seed) == ("mine", "demo", 5, 7)
    assert spec.config == {
        "train.mode": "last-linear-layer", "train.epochs": 3, "train.lr": 1e-3
    }  # fmt: skip
    assert spec.search == {
        "lora.rank": Choice((1, 2, 4)), "lora.alpha": FloatRange(1.0, 32.0, True, None)
    }  # fmt: skip
    assert len(spec.points) == 2 and spec.pruner == "none"
    long = load(profile="long")
    assert (long.trials, long.pruner) == (100, "median")
    assert long.search["train.batch_size"] == IntRange(4, 16, False, 4)
    assert "train.lr" not in long.config


def test_set_fixes_what_is_searched(load):
    spec = load(overrides={"lora.alpha": 2.0, "train.epochs": 1}, trials=3)
    assert list(spec.search) == ["lora.rank"]
    assert spec.points == [{"lora.rank": 4}, {"lora.rank": 0}]
    assert spec.config["lora.alpha"] == 2.0 and spec.config["train.epochs"] == 1
    assert spec.trials == 3


def test_set_that_makes_points_equal_leaves_one(load):
    spec = load(overrides={"lora.alpha": 2.0, "lora.rank": 1})
    assert spec.points == [{}] and spec.search == {}
    assert spec.total == 1 and "nothing is searched" not in spec.cap_note


def test_grid_lists_its_cells_after_the_points(load):
    text = STUDY.replace('"tpe"', '"grid"').replace(
        "{ low = 1.0, high = 32.0, log = true }", "{ low = 1.0, high = 8.0, step = 3.5 }"
    )
    spec = load(text, trials=99)
    assert spec.listing[:2] == spec.points
    assert len(spec.listing) == 2 + 9 - 1  # one point is a cell of the grid
    assert spec.total == 10 and "10 of 99" in spec.cap_note
    assert {cell["lora.alpha"] for cell in spec.listing} == {1.0, 4.5, 8.0}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("trials = 16", "trails = 16", 4, ["trails", "did you mean trials"]),
        ("trials = 16", 'trials = "x"', 4, ["trials", "'x'", "integer"]),
        ("trials = 16", "trials = 0", 4, ["trials", "0"]),
        ("trials = 16", "trials =", 4, ["not TOML"]),
        ('"tpe"', '"tpx"', 3, ["'tpx'", "did you mean tpe"]),
        ("[1, 2, 4]", "[1, 2, -4]", 11, ["lora.rank", "-4"]),
        ("[1, 2, 4]", "[1, 2, 2]", 11, ["lora.rank", "twice"]),
        ("[1, 2, 4]", "[true, 1]", 11, ["lora.rank: True", "integer"]),
        ("[1, 2, 4]", "[{ a = 1 }]", 11, ["lora.rank", "integer"]),
        ("[1, 2, 4]", "[]", 11, ["lora.rank", "empty"]),
        ('"train.mode" =', 'backbone = ""\n"train.mode" =', 8, ["backbone", "should not be empty"]),
        ("[1, 2, 4]", "3", 11, ["lora.rank", "low"]),
        ("[1, 2, 4]", "{ low = 4 }", 11, ["lora.rank", "high"]),
        ("[1, 2, 4]", "{ low = 4, high = 1 }", 11, ["lora.rank", "swap"]),
        ("low = 1.0", "low = 0.0", 12, ["lora.alpha", "above 0"]),
        ("log = true", "lag = true", 12, ["lora.alpha", "'lag'"]),
        ('"lora.rank" = [', '"lora.rnk" = [', 11, ["lora.rnk", "did you mean lora.rank"]),
        ("lr = 1e-3", "lr = -1", 26, ["train.lr", "greater than 0"]),
        ('"train.mode" =', '"lora.rank" = 4\n"train.mode" =', 12, ["lora.rank", "both"]),
        ("trials = 5", "trils = 5", 23, ["trils", "trials"]),
    ],
)
def test_faults_are_said_in_one_line(load, old, new, line, words):
    with pytest.raises(InputError) as refused:
        load(STUDY.replace(old, new, 1))
    message = str(refused.value)
    assert f"mine.toml:{line}: " in message
    assert "\n" not in message and all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[search]\n"lora.rank" = {}', 2, ["lora.rank", "low"]),
        ('[search]\n"lora.rank" = { step = 1 }', 2, ["search.lora.rank", "low"]),
        ('[config]\n"lora.rank" = {}', 2, ["lora.rank: {}", "integer"]),
        ('[[points]]\n"lora.rank" = {}', 2, ["lora.rank: {}", "integer"]),
        ("[search.nonsense]", 1, ["'nonsense' is not a configuration key"]),
        ("[profiles.demo]\nfoo = {}", 2, ["unknown key 'foo'"]),
        ('[config]\nlora.rank = 1\n"lora.rank" = 2', 2, ["lora.rank is given twice"]),
        ("[search]\nlora.rank = [1]\n'lora.rank' = [2]", 2, ["lora.rank is given twice"]),
        ("[[points]]\nlora.rank = 1\n'lora.rank' = 2", 2, ["lora.rank is given twice"]),
        (
            "[profiles.demo]\ntrain.lr = 1.0\nconfig.train.lr = 2.0",
            2,
            ["train.lr is given twice"],
        ),
    ],
)
def test_nothing_that_a_file_says_is_passed_over(load, text, line, words):
    with pytest.raises(InputError) as refused:
        load(text)
    message = str(refused.value)
    assert f"mine.toml:{line}: " in message and all(word in message for word in words), message


def test_an_empty_group_of_keys_says_nothing(load):
    assert load("[config.lora]\n[search.train]\n").config == {}


@pytest.mark.parametrize("wrong", ["trils = 5", "'train.rl' = 1.0", "search.'lora.rank' = 3"])
def test_profiles_that_are_not_asked_for_are_checked_too(load, wrong):
    with pytest.raises(InputError, match=r"mine\.toml:\d+: "):
        load(STUDY.replace("[profiles.long]", f"[profiles.long]\n{wrong}"), profile="demo")


def test_points_that_are_no_configuration_are_refused(load):
    with pytest.raises(InputError, match=r"mine\.toml:\d+: .*train\.epochs"):
        load(STUDY.replace('"lora.rank" = 0', '"train.epochs" = 0'))


def test_corners_of_the_search_are_tried_together(load):
    text = STUDY.replace(
        "[search]",
        '[search]\n"schedule.policy" = ["random", "annealed"]\n"schedule.per" = ["batch", "epoch"]',
    )
    with pytest.raises(InputError, match="annealed"):
        load(text)


def test_faults_of_set_name_the_option(load):
    with pytest.raises(InputError, match="--set train.lr"):
        load(overrides={"train.lr": "fast"})
    for pair, word in (("train.lr", "KEY=VALUE"), ("train.rl=1", "train.lr"), ("=1", "KEY=VALUE")):
        with pytest.raises(InputError, match=word):
            parse_sets([pair])
    with pytest.raises(InputError, match="TOML"):
        parse_sets(["train.lr=[1,"])


def test_set_values_are_toml_or_words():
    pairs = ["train.lr=1e-3", "backbone=demo", "data.path=../x y", "train.epochs=3", 'backbone="3"']
    assert parse_sets(pairs) == {
        "train.lr": 1e-3, "backbone": "3", "data.path": "../x y", "train.epochs": 3
    }  # fmt: skip
    assert parse_sets(["backbone=2024-01-01"]) == {"backbone": "2024-01-01"}


TASKS = """
[search]
"pals.kind" = ["none", "shared"]
"pals.tasks" = [["sst", "sts"], ["sst"]]
[[points]]
"pals.tasks" = ["sst"]
"""


def test_values_that_mean_the_same_are_the_same_study_and_point(load):
    spec = load(TASKS)
    same = load(TASKS.replace('["sst", "sts"]', '["sts", "sst", "sst"]').replace("sha", "pals-sha"))
    assert same.identity == spec.identity and same.settings == spec.settings
    fixed = [load(overrides={"pals.tasks": tasks}) for tasks in (["sst"], ["sst", "sst"])]
    assert fixed[0].identity == fixed[1].identity
    twice = TASKS + '[[points]]\n"pals.tasks" = ["sst", "sst"]\n'
    assert load(twice).points == [{"pals.tasks": ["sst"]}]
    with pytest.raises(InputError, match="stands twice"):
        load(TASKS.replace('["sst", "sts"]', '["sst", "sst"]'))


@pytest.mark.parametrize("search", ["[4]", "{ low = 4, high = 4 }"])
def test_a_search_of_one_value_is_one_trial(load, search):
    spec = load(f'trials = 3\n[search]\n"lora.rank" = {search}\n')
    assert spec.total == 1 and spec.listing == [{"lora.rank": 4}]
    assert "1 of 3 trials: each searched key has one value" in spec.cap_note
    pointed = load(f'trials = 9\n[search]\n"lora.rank" = {search}\n[[points]]\n"lora.rank" = 8\n')
    assert pointed.total == 2
    known = load(f'trials = 9\n[search]\n"lora.rank" = {search}\n[[points]]\n"lora.rank" = 4\n')
    assert known.total == 1
    more = load(f'trials = 3\n[search]\n"lora.rank" = {search}\n"lora.alpha" = [1, 2]\n')
    assert more.total == 3 and more.cap_note is None


def test_the_key_says_whether_a_range_holds_whole_numbers(load):
    text = '[search]\n"{}" = {{ low = 0, high = 1 }}\n'
    assert load(text.format("schedule.anneal")).search == {
        "schedule.anneal": FloatRange(0.0, 1.0)
    }
    assert load(text.format("lora.rank")).search == {"lora.rank": IntRange(0, 1)}


def test_a_range_is_described_whole(load):
    spec = load('[search]\n"schedule.anneal" = { low = 0, high = 1 }\n')
    assert spec.settings["search"] == {"schedule.anneal": {"low": 0.0, "high": 1.0}}
    # As it was recorded by earlier versions.
    old = {**spec.settings, "search": {"schedule.anneal": {"high": 1.0}}}
    assert differing_keys(old, spec.settings) == []
    whole = {**spec.settings, "search": {"schedule.anneal": {"high": 1}}}
    assert differing_keys(whole, spec.settings) == ["schedule.anneal"]


@pytest.mark.parametrize(
    ("key", "low", "high", "step", "cells"),
    [
        ("lora.alpha", 0.1, 0.35, 0.1, [0.1, 0.2, 0.3]),
        ("lora.alpha", 0.1, 0.7, 0.1, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]),
        ("lora.alpha", 1.0, 8.0, 3.0, [1.0, 4.0, 7.0]),
        ("lora.rank", 1, 8, 3, [1, 4, 7]),
        ("lora.rank", 1, 8, 10, [1]),
    ],
)
def test_steps_are_those_that_optuna_takes(load, key, low, high, step, cells):
    spec = load(f'[search]\n"{key}" = {{ low = {low}, high = {high}, step = {step} }}\n')
    search = spec.search[key]
    assert search.grid() == cells and search.corners() == [cells[0], cells[-1]]
    assert search.distribution().high == cells[-1]
    assert all(search.contains(cell) for cell in cells)
    assert spec.open_ended == (len(cells) > 1)


def test_a_search_without_effect_is_noticed(load):
    idle = '[search]\n"pals.tasks" = [["sst"], ["sts"]]\n"smart.steps" = [1, 2]\n'
    idle += '"lora.alpha" = [1, 2]\n'
    notes = load(idle).notes
    assert [note.partition(":")[0] for note in notes] == ["lora.alpha", "pals.tasks", "smart.steps"]
    assert "smart.lambda is 0.0 and smart.proximal is 0.0 in every trial" in notes[2]
    used = '"lora.rank" = [0, 2]\n[[points]]\n"pals.kind" = "shared"\n"smart.proximal" = 1.0\n'
    assert load(idle + used).notes == []
    for study in list_studies():
        for profile in study.profiles:
            assert "without effect" not in " ".join(load_study(study.name, profile=profile).notes)


def test_a_study_file_that_is_no_file_says_what_it_is(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "lost.toml").symlink_to("nowhere")
    for name, words in (
        (tmp_path / "folder.toml", "is a folder"),
        (tmp_path / "fifo.toml", "is not a regular file"),
        ("/dev/null", "is not a regular file"),
        (tmp_path / "loop.toml", "leads to itself"),
        (tmp_path / "lost.toml", "there is no such study file"),
    ):
        with pytest.raises(InputError, match=words):
            load_study(str(name))


def test_a_byte_order_mark_is_read_over(load, tmp_path):
    (tmp_path / "marked.toml").write_text(STUDY, encoding="utf-8-sig")
    assert load_study(str(tmp_path / "marked.toml")).settings == load().settings


def test_unknown_studies_and_profiles_name_the_nearest(load):
    with pytest.raises(InputError, match="did you mean lora_sweep"):
        load_study("lora_swep")
    with pytest.raises(InputError, match="did you mean long"):
        load(profile="lang")
    for name in ("missing.toml", "a/../b", "x" * 300 + ".toml", "nul\0"):
        with pytest.raises(InputError):
            load_study(name)


def test_files_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_study(str(tmp_path / "bytes.toml"))
    (tmp_path / "deep.toml").write_text("x = " + "[" * 100_000)
    with pytest.raises(InputError, match="nested"):
        load_study(str(tmp_path / "deep.toml"))


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "", ".hidden", "a\0", "n" * 300, "a..b"])
def test_unsafe_names_are_refused(name):
    with pytest.raises(InputError, match="study name"):
        check_name(name)


@pytest.mark.parametrize("name", ["lora_sweep", "größe 🚀", "a.b", "x@3f2a1b"])
def test_other_names_are_fine(name):
    assert check_name(name) == name


def test_same_settings_same_identity(load):
    spec = load()
    assert load(trials=3).identity == spec.identity
    assert load(STUDY.replace("a study", "another")).identity == spec.identity
    # Naming a default changes nothing.
    assert load(overrides={"train.dropout": 0.3}).identity == spec.identity
    other = load(overrides={"train.dropout": 0.1})
    assert other.identity != spec.identity
    assert differing_keys(spec.settings, other.settings) == ["train.dropout"]
    fixed = load(overrides={"lora.rank": 4})
    assert differing_keys(spec.settings, fixed.settings) == ["lora.rank"]


def test_shipped_studies_load_with_every_profile():
    studies = list_studies()
    assert "lora_sweep" in {study.name for study in studies}
    for study in studies:
        assert study.description
        for profile in study.profiles or [None]:
            assert load_study(study.name, profile=profile).total >= 1
