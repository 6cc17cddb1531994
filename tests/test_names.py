"""Names of studies and files: none leaves the home, those that are fine work everywhere.

Room: mtl/study.
"""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from minbert import InputError
from mtl.storage.home import Home
from mtl.study.names import check_distinct, check_name, fold
from support.commands import sets
from support.study_runs import write_study

UNSAFE = [
    *("..", ".", "../x", "/etc/passwd", "a/b", "a\\b", "C:\\x", "", " ", "nul\0", "a\nb"),
    *("\x1b[2J", "n" * 300, "🌞" * 51, "name.", "name ", " name", "-rf", ".hidden", "a..b"),
    *("\u202etxt.exe", "a\u2028b", "\ud800", "train", "Train", "ＴＲＡＩＮ", "Default"),
]


@pytest.mark.parametrize("name", UNSAFE, ids=ascii)
def test_unsafe_names_are_refused_and_nothing_is_written(here, tmp_path: Path, name: str):
    file = tmp_path / "good.toml"
    file.write_text('[search]\n"lora.rank" = [1, 2]\n')
    outcome = here(tmp_path, "study", "run", file, f"--as={name}")
    outcome.refused()
    assert {path.name for path in tmp_path.iterdir()} <= {"good.toml", "home"}
    assert not list((tmp_path / "home").glob("checkpoints/*"))


@pytest.mark.parametrize("stem", ["train", "-x", ".hidden", "a..b", "x ", "x\n", "x."], ids=ascii)
def test_a_file_s_name_is_a_study_s_name(here, tmp_path: Path, stem: str):
    (tmp_path / f"{stem}.toml").write_text("trials = 1\n")
    here(tmp_path, "study", "show", f"./{stem}.toml").refused("study name")


@given(st.text(min_size=1, max_size=80))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_name_that_is_taken_lies_in_the_home(name):
    home = Home(Path("/home/of/studies"), "", "")
    try:
        check_name(name)
    except InputError as error:
        assert "study name" in str(error)
        return
    folder = home.checkpoint_dir(name, 0)
    assert folder.parent.parent == home.checkpoints and ".." not in folder.parts
    assert len(f"{name}@3f2a1b".encode()) <= 255
    name.encode()  # no half of a character


@pytest.mark.parametrize(
    "name", ["🌞", "größe 🚀", "👩\u200d🚀", "a:b", "50 %", "it's", "x@3f2a1b", "हिन्दी", "con"]
)
def test_other_names_are_fine(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Sweep", "sweep"),
        ("größe", unicodedata.normalize("NFD", "größe")),
        ("GRÖSSE", "größe"),
        ("ﬁne", "fine"),
        ("sun☀", "sun☀\ufe0f"),
        ("a\u200bb", "ab"),
    ],
    ids=ascii,
)
def test_names_that_look_the_same_are_not_two_studies(name, known):
    with pytest.raises(InputError, match="too like"):
        check_distinct(name, ["other", known])
    check_distinct(known, ["other", known, name])  # what is recorded goes on


def test_different_names_are_told_apart():
    names = ["a", "b", "ab", "a b", "हि", "ही", "1", "２x", "größe", "grosse-"]
    assert len({fold(name) for name in names}) == len(names)


@pytest.mark.parametrize("arg", ["a\0b", "a\udcffb"], ids=ascii)
@pytest.mark.parametrize(
    "command",
    [
        ["study", "run"], ["study", "status"], ["study", "export", "x", "-o"], ["data", "check"],
        ["predict", "x", "--data", "demo", "-o"], ["train", "--resume"], ["params", "--set"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_arguments_that_are_no_text_are_refused(here, tmp_path, command, arg):
    here(tmp_path, *command, arg).refused("not text")


@pytest.mark.parametrize("out", ["x" * 300, "file/page", "folder"])
def test_outputs_that_cannot_be_written_are_said(here, home, tmp_path, out):
    import optuna

    from mtl.storage.optuna import open_storage

    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    place = Home.resolve()
    optuna.create_study(study_name="s", storage=open_storage(place)).ask()
    for verb in ("export", "report"):
        here(tmp_path, "study", verb, "s", "-o", out).refused("cannot be written")


def test_set_cannot_reach_out_of_the_home_by_a_backbone_s_name(here, tmp_path):
    write_study(tmp_path)
    for name in ("../../x", "/nowhere/x", "a/../../b", "x" * 300, "\t"):
        outcome = here(tmp_path, "study", "run", tmp_path / "tiny.toml", *sets(f"backbone={name}"))
        outcome.refused("backbone")


@pytest.mark.parametrize(
    "command",
    [
        ["study", "run", ""], ["study", "status", ""], ["study", "report", "x", "-o", ""],
        ["study", "export", "x", "--out="], ["study", "run", "lora_sweep", "--as", ""],
        ["study", "sync", ""], ["data", "check", ""], ["backbone", "check", ""],
        ["predict", "", "--data", "demo", "-o", "out"], ["predict", "x", "--data", "", "-o", "out"],
        ["predict", "x", "--data", "demo", "-o", ""], ["train", "--resume", ""],
        ["train", "--set="], ["params", "--set", ""], ["ui", "--host", ""], [""],
    ],
    ids=repr,
)  # fmt: skip
def test_empty_arguments_are_refused(here, tmp_path, command):
    here(tmp_path, *command).refused("is empty")
    assert not list(tmp_path.iterdir())
