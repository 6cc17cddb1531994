"""Studies from the command line to the end: run, look, continue, interrupt, predict, train.

Room: mtl/cli.
"""

import csv
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.commands import (
    TERMINAL,
    TINY,
    Outcome,
    command,
    drawn_here,
    mtl_here,
    sets,
    start_mtl,
    wait_for,
)
from support.homes import furnish

SWEEP = ("study", "run", "lora_sweep", "--jobs", "1")
LONG = sets("train.epochs=500", "train.steps_per_epoch=20", "train.eval_limit=60")
NOTE = "Demo scores mean nothing outside the demo."


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A home in which a tiny demo study of two trials was run, and what the command said."""
    folder = tmp_path_factory.mktemp("recorded")
    furnish(folder / "home")
    outcome = mtl_in(folder, *SWEEP, "--trials", "2", "--json", *sets(*TINY))
    assert outcome.code == 0, outcome.err
    return folder, outcome


def mtl_in(folder: Path, *args: object) -> Outcome:
    return mtl_here(folder, *args, MTL_HOME=str(folder / "home"))


def environment(folder: Path, **env: str) -> dict[str, str]:
    return {**os.environ, "MTL_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **env}


def test_run_says_what_became_of_it(recorded):
    found = recorded[1].json
    assert found["name"] == "lora_sweep"
    assert (found["total"], found["complete"], found["failed"]) == (2, 2, 0)
    assert not found["interrupted"]
    assert 0 < found["best"]["score"] < 1


def test_run_again_does_nothing_and_says_so(recorded):
    outcome = mtl_in(recorded[0], *SWEEP, "--trials", "2", *sets(*TINY))
    assert outcome.code == 0
    assert "nothing to do" in outcome.out and "--trials" in outcome.out
    assert NOTE in outcome.out
    assert "trial 0 started" not in outcome.out


def test_status_best_and_list_agree(recorded):
    folder, run = recorded
    status = mtl_in(folder, "study", "status", "lora_sweep", "--json").json
    assert (status["complete"], status["running"], status["trials"]) == (2, 0, 2)
    best = mtl_in(folder, "study", "best", "lora_sweep", "--json").json["best"]
    assert best["number"] == status["best"]["number"] == run.json["best"]["number"]
    assert best["score"] == pytest.approx(run.json["best"]["score"])
    (row,) = mtl_in(folder, "study", "list", "--json").json["recorded"]
    assert (row["name"], row["complete"]) == ("lora_sweep", 2)


@pytest.mark.parametrize("verb", ["status", "best"])
def test_demo_screens_say_so(recorded, verb: str):
    assert NOTE in mtl_in(recorded[0], "study", verb, "lora_sweep").out


def test_export_to_a_file_and_to_standard_output(recorded, tmp_path: Path):
    folder = recorded[0]
    file = tmp_path / "trials.csv"
    assert mtl_in(folder, "study", "export", "lora_sweep", "-o", file).code == 0
    text = mtl_in(folder, "study", "export", "lora_sweep").out
    assert text.splitlines() == file.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(text.splitlines()))
    assert {row["number"] for row in rows} == {"0", "1"}
    assert {row["config.lora.rank"] for row in rows} == {"0", "4"}


def test_predict_writes_the_six_files(recorded, tmp_path: Path):
    folder, run = recorded
    typed = f"mtl predict {run.json['best']['run_id']} --data demo -o predictions\n"
    assert typed in mtl_in(folder, "study", "best", "lora_sweep").out
    args = ("predict", run.json["best"]["run_id"], "--data", "demo", "-o", tmp_path / "out")
    found = mtl_in(folder, *args, "--json").json
    assert sorted(Path(file).name for file in found["files"]) == sorted(
        f"{task}-{split}-output.csv" for task in ("sst", "para", "sts") for split in ("dev", "test")
    )
    lines = (tmp_path / "out/sst-dev-output.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "id \t Predicted_Sentiment "
    assert {line.split(" , ")[1] for line in lines[1:]} <= set("01234")


@pytest.mark.usefixtures("furnished")
def test_plan_counts_before_anything_runs(tmp_path: Path):
    args = ("study", "plan", "lora_sweep", "--json", "--trials", "12", *sets(*TINY))
    plan = mtl_in(tmp_path, *args).json
    assert plan["trials"] == 12
    assert plan["steps"] == 36
    assert plan["seconds"] > 0 and plan["memory_bytes"] > 0
    assert mtl_in(tmp_path, "study", "list", "--json").json["recorded"] == []


def test_other_settings_are_another_study(recorded):
    outcome = mtl_in(
        recorded[0], *SWEEP, "--trials", "1", "--as", "lora_sweep", *sets(*TINY, "train.lr=0.5")
    )
    outcome.refused("train.lr")


@pytest.mark.usefixtures("furnished")
def test_a_diverged_trial_is_exit_1_with_its_reason(tmp_path: Path):
    """Every trial fails, the study goes on to its end, and the reason is said."""
    args = (*SWEEP, "--trials", "1", *sets(*TINY, "train.epochs=3", "train.lr=1e30"))
    outcome = mtl_in(tmp_path, *args)
    assert outcome.code == 1, outcome
    assert "trial 0 failed" in outcome.out and "diverged" in outcome.out
    assert mtl_in(tmp_path, "study", "status", "lora_sweep", "--json").json["failed"] == 1
    later = mtl_in(tmp_path, "study", "status", "lora_sweep").out
    assert "failed   trial 0, r=0 α=1: diverged: the loss became" in later


def start(folder: Path, *args: str) -> subprocess.Popen:
    return start_mtl(folder, *args, **environment(folder))


@pytest.mark.usefixtures("furnished")
def test_interrupt_a_study_and_go_on_with_the_same_command(tmp_path: Path):
    args = [*SWEEP, "--trials", "1"]
    process = start(tmp_path, *args, *LONG)
    try:
        wait_for(process, "epoch 2")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "mtl study run lora_sweep" in err and "Traceback" not in err
    for said in ("trial 0 unfinished (it will be continued)", "r=0 α=1 (unfinished)",
                 "study lora_sweep: 1 unfinished of 1 trial"):  # fmt: skip
        assert said in out, out
    status = mtl_in(tmp_path, "study", "status", "lora_sweep", "--json").json
    assert (status["running"], status["unfinished"], status["dispatcher"]) == (1, 1, None)
    out = mtl_in(tmp_path, "study", "status", "lora_sweep").out
    assert "1 unfinished of 1 trial" in out and "r=0 α=1" in out and "running" not in out
    assert listed(tmp_path)[-2:] == ["0", "1"]
    process = start(tmp_path, *args, *LONG)
    try:
        wait_for(process, "trial 0 resumed")
        wait_for(process, "trial 0 epoch")
        status = mtl_in(tmp_path, "study", "status", "lora_sweep", "--json").json
        assert (status["running"], status["unfinished"]) == (1, 0)
        assert "1 running of 1 trial" in mtl_in(tmp_path, "study", "status", "lora_sweep").out
        assert listed(tmp_path)[-2:] == ["1", "0"]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def listed(folder: Path) -> list[str]:
    """The row of the only study in the table of recorded ones; its last cells count the trials
    that run and that are unfinished."""
    table = mtl_in(folder, "study", "list").out.rpartition("recorded here")[2].splitlines()
    assert table[0].split()[-2:] == ["running", "unfinished"]
    return table[2].split()


def test_one_trial_has_the_same_label_everywhere(dumb):
    folder, out = dumb
    assert "trial 0 started: r=0 α=1" in out
    assert out.count("r=0 α=1") == 2, "at the start and in the table"
    assert "trial 0, r=0 α=1:" in mtl_in(folder, "study", "status", "lora_sweep").out
    best = mtl_in(folder, "study", "best", "lora_sweep")
    assert "the best is trial 0, r=0 α=1\n" in best.out and "lora.rank" in best.out


@pytest.mark.usefixtures("furnished")
def test_a_label_is_shown_with_the_best_trial_and_in_the_plan(tmp_path: Path):
    few = ("methods", "--trials", "1", *sets(*TINY))
    plan = mtl_in(tmp_path, "study", "plan", *few).out
    assert "point 1   SST alone" in plan and "smallest" not in plan
    assert mtl_in(tmp_path, "study", "run", *few, "--jobs", "1").code == 0
    assert "the best is trial 0, SST alone\n" in mtl_in(tmp_path, "study", "best", "methods").out


@pytest.mark.usefixtures("furnished")
def test_the_plan_of_a_search_names_its_ends(tmp_path: Path):
    plan = mtl_in(tmp_path, "study", "plan", "lora_sweep", *sets(*TINY)).out
    assert "14 trials, 8 points first, then 6 by tpe, no pruner" in plan
    assert "search: smallest   r=1 α=1 " in plan and "search: largest    r=16 α=32 " in plan


@pytest.mark.usefixtures("furnished")
def test_train_interrupt_resume(tmp_path: Path):
    epochs = 8
    process = start(tmp_path, "train", *sets(f"train.epochs={epochs}", "train.steps_per_epoch=4"))
    try:
        wait_for(process, "epoch 2")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    line = next(line for line in err.splitlines() if "--resume" in line)
    run_id = line.split()[-1]
    found = mtl_in(tmp_path, "train", "--resume", run_id, "--json").json
    assert (found["run_id"], found["state"]) == (run_id, "complete")
    assert history(tmp_path, run_id, "dev/score") == list(range(4, 4 * epochs + 1, 4))
    assert not list((tmp_path / "home/checkpoints/train").glob("*/*"))


def history(folder: Path, run_id: str, key: str) -> list[int]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'home/mlflow.db'}")
    assert client.get_run(run_id).info.status == "FINISHED"
    return sorted(point.step for point in client.get_metric_history(run_id, key))


@pytest.mark.usefixtures("furnished")
def test_train_in_one_object(tmp_path: Path):
    found = mtl_in(tmp_path, "train", "--json", *sets(*TINY, "lora.rank=2")).json
    assert found["profile"] == "demo"
    assert found["score"] == found["scores"]["score"]
    assert found["best_epoch"] == 1
    args = ("predict", found["model"], "--data", "demo", "-o", "out", "--json")
    predicted = mtl_in(tmp_path, *args).json
    assert len(predicted["files"]) == 6


def on_a_terminal(folder: Path, *args: str, **env: str) -> str:
    """Run the command as a process on a pseudo-terminal; return everything that it drew."""
    parent, child = pty.openpty()
    env = {**TERMINAL, **env}
    process = subprocess.Popen(
        [command(), *args],
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=folder,
        env=environment(folder, **env),
    )
    os.close(child)
    drawn = b""
    deadline = time.monotonic() + 240
    try:
        while time.monotonic() < deadline:
            if select.select([parent], [], [], 1.0)[0]:
                try:
                    drawn += os.read(parent, 65536)
                except OSError:  # the other end is closed
                    break
        assert process.wait(timeout=10) == 0, drawn.decode()
    finally:
        process.kill()
        os.close(parent)
    return drawn.decode("utf-8", errors="replace")


@pytest.mark.usefixtures("furnished")
def test_a_terminal_gets_a_live_view(tmp_path: Path):
    drawn = drawn_in(
        tmp_path, *SWEEP, "--trials", "2", *sets(*TINY, "train.steps_per_epoch=30"), TERM="xterm"
    )
    assert "\x1b[" in drawn and "━" in drawn
    for word in ("best so far", "left", "2 trials done", "trial 1 complete", "rank", NOTE):
        assert word in drawn, word
    assert "\x1b[?25h" in drawn[drawn.rindex("\x1b[?25l") :], "the cursor is shown again"


def drawn_in(folder: Path, *args: object, **env: str) -> str:
    return drawn_here(folder, *args, MTL_HOME=str(folder / "home"), **env)


def test_results_fit_a_terminal_of_80_columns(recorded):
    args = (*SWEEP, "--trials", "2", *sets(*TINY))
    lines = drawn_in(recorded[0], *args, TERM="dumb", COLUMNS="80").splitlines()
    head = next(i for i, line in enumerate(lines) if "parameters" in line)
    assert "trainable" in lines[head] and "minutes" not in lines[head]
    assert all(len(line) <= 80 for line in lines[head : head + 4])
    assert {line.split()[2] for line in lines[head + 2 : head + 4]} == {"r=0", "r=4"}
    piped = mtl_here(recorded[0], *args, MTL_HOME=str(recorded[0] / "home"), COLUMNS="80").out
    assert "trainable   minutes" in piped


@pytest.fixture(scope="module")
def dumb(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home in which a study of one trial was run on a dumb terminal, and what that showed."""
    folder = tmp_path_factory.mktemp("dumb")
    furnish(folder / "home")
    return folder, drawn_in(folder, *SWEEP, "--trials", "1", *sets(*TINY), TERM="dumb")


def test_a_dumb_terminal_gets_plain_lines(dumb):
    drawn = dumb[1]
    assert "\x1b" not in drawn
    assert "trial 0 epoch 1" in drawn


def test_no_color_is_heeded(recorded):
    args = (recorded[0], *SWEEP, "--trials", "2", *sets(*TINY))
    coloured, yellow = "xterm-256color", "\x1b[33m"
    assert yellow in drawn_in(*args, TERM=coloured)
    plain = on_a_terminal(*args, TERM=coloured, NO_COLOR="1")
    assert "nothing to do" in plain and "\x1b[3" not in plain


def test_nothing_to_compare_is_exit_1_and_a_wrong_number_is_2(recorded, tmp_path: Path):
    import optuna

    from mtl.storage.home import Home
    from mtl.storage.optuna import open_storage

    (tmp_path / "home").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_HOME", str(tmp_path / "home"))
        study = optuna.create_study(study_name="s", storage=open_storage(Home.resolve()))
    for reason in ("no trial is complete", "no trial is complete"):
        outcome = mtl_in(tmp_path, "study", "compare", "s")
        assert (outcome.code, outcome.err) == (1, "")
        assert outcome.out == f"s: nothing to compare yet, {reason}\n"
        outcome = mtl_in(tmp_path, "study", "compare", "s", "--json")
        assert outcome.code == 1
        assert (outcome.json["trials"], outcome.json["reason"]) == ([], reason)
        study.ask()
    mtl_in(tmp_path, "study", "compare", "s", 7, 8).refused("no trial 7")
    mtl_in(tmp_path, "study", "compare", "none").refused("none")
    study.tell(study.ask(), 0.5)
    outcome = mtl_in(tmp_path, "study", "compare", "s")
    assert (outcome.code, outcome.out) == (
        1, "s: nothing to compare yet, no other setting is complete\n"
    )  # fmt: skip
    assert mtl_in(recorded[0], "study", "compare", "lora_sweep").code == 0


def test_predicting_with_a_study_s_run_names_the_command_that_finds_a_trial_s(recorded):
    from mlflow import MlflowClient

    folder, run = recorded
    client = MlflowClient(f"sqlite:///{folder / 'home/mlflow.db'}")
    parent = client.get_run(run.json["best"]["run_id"]).data.tags["mlflow.parentRunId"]
    outcome = mtl_in(folder, "predict", parent, "--data", "demo", "-o", "out")
    outcome.refused("is a study's", "mtl study best lora_sweep")


def test_a_variant_s_name_is_said_only_once_the_input_is_good(recorded):
    bad = sets(*TINY, "data.path=nowhere")
    mtl_in(recorded[0], *SWEEP, "--trials", "1", *bad).refused("nowhere")
    good = sets(*TINY, "train.dropout=0.25")
    outcome = mtl_in(recorded[0], *SWEEP, "--trials", "1", *good)
    assert "other settings in train.dropout: this one is lora_sweep@" in outcome.out


@pytest.mark.usefixtures("furnished")
def test_whoever_comes_later_is_told_the_command_that_goes_on(tmp_path, monkeypatch):
    """Known by the study's name alone: after a power cut nobody remembers file and settings."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "mine.toml").write_text('trials = 1\n[search]\n"lora.rank" = [1, 2]\n')
    typed = ("study", "run", "./mine.toml", "--jobs", "1", *sets(*TINY))
    monkeypatch.setattr("sys.argv", ["mtl", *typed])
    assert mtl_here(work, *typed, MTL_HOME=str(tmp_path / "home")).code == 0
    command = f"mtl {' '.join(typed)} (in {work})"
    assert mtl_in(tmp_path, "study", "status", "mine", "--json").json["command"] == command
    for verb in ("run", "plan", "show"):
        refused = mtl_in(tmp_path, "study", verb, "mine")
        assert refused.code == 2 and refused.err.strip().endswith(f"from a file: {command}")
