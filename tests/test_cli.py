"""The command line's manners: exit codes, one-line errors, JSON, pipes.

Room: mtl/cli.
"""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from minbert.errors import InputError
from mtl.cli.exits import run
from support.commands import command, sets

LLL = sets("backbone=bert-base-uncased", "train.mode=last-linear-layer", "lora.alpha=8")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["stduy"], ["'study'"]),
        (["study", "lst"], ["'list'", "mtl study --help"]),
        (["study", "run"], ["NAME|FILE"]),
        (["study", "run", "lora_sweep", "--executer", "local"], ["'--executor'"]),
        (["study", "run", "lora_sweep", "--trials", "0"], ["--trials"]),
        (["study", "run", "lora_sweep", "--executor", "slurm"], ["local", "ray"]),
        (["study", "run", "lora_swep"], ["lora_sweep"]),
        (["study", "run", "lora_sweep", "--profile", "dmo"], ["demo"]),
        (["study", "run", "./no.toml"], ["no.toml"]),
        (["study", "show", "lora_sweep", "--set", "lora.rnk=4"], ["lora.rank"]),
        (["study", "show", "lora_sweep", "--set", "lora.rank"], ["KEY=VALUE"]),
        (["study", "status", "lora_sweep"], ["mtl study run lora_sweep"]),
        (["study", "best", "nothing"], ["nothing"]),
        (["params", "--set", "train.lr=fast"], ["train.lr", "fast"]),
        (["params", "--set", "backbone=no-such-model"], ["no-such-model"]),
        (["train", "--set", "data.path=nowhere"], ["data.path", "nowhere"]),
        (["train", "--resume", "abc"], ["abc"]),
        (["train", "--resume", "abc", "--set", "train.lr=1"], ["--resume"]),
        (["data", "check", "nowhere"], ["nowhere"]),
        (["backbone", "check", "nowhere"], ["nowhere", "mtl backbone pull"]),
        (["predict", "abc", "--data", "demo", "-o", "out"], ["abc"]),
        (["predict", ".", "--data", "demo", "-o", "out"], ["config"]),
        (["ui", "--port", "70000"], ["--port"]),
        (["ui", "--port", "18080", "--dashboard-port", "18080"], ["--dashboard-port", "18080"]),
        (["train", "--set", "train.lr=1e39"], ["train.lr", "less than"]),
        (["train", "--set", "smart.alpha=1e300"], ["smart.alpha", "less than"]),
        (["params", "--set", "backbone="], ["backbone: '' does not fit; it should not be empty"]),
        (["params", "--set", "data.path="], ["data.path: '' does not fit; it should not be empty"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_2(here, tmp_path: Path, args, words):
    here(tmp_path, *args).refused(*words)


def test_bad_input_leaves_standard_output_empty_for_json(mtl):
    mtl("study", "run", "lora_swep", "--json").refused("lora_sweep")


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(tmp_path: Path, closed: str):
    done = subprocess.run(["sh", "-c", f"{command()} params {closed}"], cwd=tmp_path)
    assert done.returncode == 0


def test_a_home_that_cannot_be_written(here, tmp_path: Path):
    (tmp_path / "file").touch()
    home = str(tmp_path / "file" / "home")
    outcome = here(tmp_path, "study", "run", "lora_sweep", MTL_HOME=home)
    outcome.refused("MTL_HOME")


def test_a_study_file_that_is_no_toml(mtl, tmp_path: Path):
    (tmp_path / "broken.toml").write_text('description = "x"\ntrials = = 3\n')
    mtl("study", "run", "./broken.toml").refused("broken.toml:2")


@pytest.mark.parametrize(("rank", "trainable"), [(1, 149_767), (4, 599_068), (16, 2_396_272)])
def test_params_are_the_papers(here, tmp_path: Path, rank: int, trainable: int):
    found = here(tmp_path, "params", *LLL, "--set", f"lora.rank={rank}", "--json").json
    assert found["trainable"] == trainable
    assert found["total"] == 109_487_623 + 149_767 * rank


def test_params_in_words(here, tmp_path: Path):
    outcome = here(tmp_path, "params", *LLL, "--set", "lora.rank=4")
    assert outcome.code == 0
    assert "trainable 599,068 of 110,086,691" in outcome.out


def test_version_and_help(mtl):
    assert mtl("--version").out.startswith("mtl ")
    assert "lora_sweep" in mtl("-h").out


def test_study_list_names_the_shipped_studies(mtl, home: Path):
    found = mtl("study", "list", "--json").json
    sweep = next(row for row in found["studies"] if row["name"] == "lora_sweep")
    assert {"demo", "paper"} <= set(sweep["profiles"])
    assert found["recorded"] == []
    assert not home.exists(), "looking must not write"


def test_study_show_can_be_read_back(mtl, tmp_path: Path):
    """What show prints is a study file that means the same."""
    args = ["--set", "train.lr=2e-4", "--trials", "5"]
    shown = mtl("study", "show", "lora_sweep", *args)
    (tmp_path / "lora_sweep.toml").write_text(shown.out, encoding="utf-8")
    first = mtl("study", "show", "lora_sweep", *args, "--json").json
    again = mtl("study", "show", "./lora_sweep.toml", "--json").json
    assert first["config"]["train.lr"] == 2e-4
    assert first["trials"] == 5
    assert again == {**first, "profile": None}


def test_show_applies_the_profile(mtl):
    paper = mtl("study", "show", "lora_sweep", "--profile", "paper", "--json").json
    assert paper["config"]["backbone"] == "bert-base-uncased"
    assert paper["config"]["train.epochs"] == 100


def test_data_check_counts_the_demo(here, tmp_path: Path):
    found = here(tmp_path, "data", "check", "--json").json
    assert {row["task"] for row in found["files"]} == {"sst", "para", "sts"}
    assert all(row["used"] == row["rows"] > 0 for row in found["files"])


def test_data_check_names_unusable_rows(here, tmp_path: Path, real_data: Path):
    outcome = here(tmp_path, "data", "check", real_data)
    assert outcome.code == 0
    assert "quora-train.csv, line 15214: is_duplicate is blank" in outcome.out


def test_data_check_refuses_a_label_outside_its_range(here, real_data: Path, tmp_path: Path):
    folder = tmp_path / "data"
    folder.mkdir()
    for file in real_data.glob("*.csv"):
        text = file.read_text(encoding="utf-8").split("\n")
        (folder / file.name).write_text("\n".join(text[:50]) + "\n", encoding="utf-8")
    dev = folder / "ids-sst-dev.csv"
    lines = dev.read_text(encoding="utf-8").splitlines()
    lines[3] = lines[3].rpartition("\t")[0] + "\t7"
    dev.write_text("\n".join(lines) + "\n", encoding="utf-8")
    here(tmp_path, "data", "check", folder).refused("ids-sst-dev.csv, line 4", "7")


def test_backbone_check_reports_the_demo(here, tmp_path: Path):
    found = here(tmp_path, "backbone", "check", "--json").json
    assert found["hidden_size"] == 128
    assert len(found["sha256"]) == 64


def test_backbone_pull_without_a_hub_is_one_line(mtl):
    mtl("backbone", "pull", "some/model", HF_ENDPOINT="http://127.0.0.1:9").refused("some/model")


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path):
    line = f"{command()} study show lora_sweep --profile paper | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path)
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() in ("0", "1")  # 0: all fitted into the pipe before it closed


# What follows runs in this process: the way from an error to an exit code.


def ending(error: BaseException | None) -> click.Command:
    @click.command()
    def command() -> None:
        if error:
            raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (InputError("file x: no"), 2),
        (click.UsageError("no"), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (RuntimeError("boom"), 1),
    ],
    ids=repr,
)
def test_exit_codes(error, code, capfd):
    assert run(ending(error), []) == code


def test_a_fault_of_ours_is_one_line_that_names_the_log(home: Path, capfd):
    assert run(ending(RuntimeError("boom\nand more")), []) == 1
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "RuntimeError: boom and more" in line
    (log,) = (home / "logs").iterdir()
    assert log.name in line
    assert "Traceback" in log.read_text(encoding="utf-8")


def test_json_alone_is_on_standard_output():
    code = (
        "import os\n"
        "from mtl.cli.common import print_json, reserved_stdout\n"
        "with reserved_stdout(True):\n"
        "    print('from a library')\n"
        "    os.write(1, b'from a child process\\n')\n"
        "print_json({'score': float('nan'), 'n': 1})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"score": None, "n": 1}
    assert "from a library" in done.stderr and "from a child process" in done.stderr
