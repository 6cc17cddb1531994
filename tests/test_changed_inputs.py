"""Data and backbones that change under their path: other files are another study, the same files
elsewhere are the same, and no trial on other files is scored into a study's table.

Room: mtl/study.
"""

import shutil

import optuna

from support.study_runs import Study

POINTS = '[[points]]\n"lora.rank" = 1\n"lora.alpha" = 8.0\n[[points]]\n"lora.rank" = 2\n'


def without_last_row(file) -> str:
    """Take the last row off a data file; return the file's text as it was."""
    text = file.read_text()
    file.write_text("\n".join(text.split("\n")[:-2]) + "\n")
    return text


def test_other_files_under_a_path_are_another_study(tmp_path, home):
    study = Study(tmp_path / "study", home, steps=1, epochs=1, more=POINTS).furnished()
    data, copy = study.file.parent / "data", tmp_path / "copy"
    assert study.run_here("--trials", "1")[0] == 0
    shutil.copytree(data, copy)
    code, said = study.run_here("--trials", "2", "--set", f"data.path={copy}")
    assert code == 0 and study.studies() == ["tiny"] and len(study.trials()) == 2, said
    assert str(copy) not in study.mtl("status", "tiny")[1]  # it tells no trials apart

    before = without_last_row(data / "ids-sst-dev.csv")
    code, said = study.run_here("--trials", "1")
    assert "study tiny has other settings in the files of data.path: this one is tiny@" in said
    variant = study.studies()[1]
    assert (len(study.trials()), len(study.trials(variant))) == (2, 1)
    code, said = study.run_here("--trials", "1")
    assert f"study {variant} has its 1 trial: nothing to do" in said
    code, said = study.run_here("--trials", "1", "--as", "tiny")
    assert code == 2 and "in the files of data.path" in said
    (data / "ids-sst-dev.csv").write_text(before)
    assert "study tiny has its 2 trials: nothing to do" in study.run_here("--trials", "2")[1]

    # The words of a backbone make what is trained on, as its weights do.
    words = study.file.parent / "bert" / "vocab.txt"
    known = words.read_text()
    words.write_text(known.replace("good\nbad\n", "bad\ngood\n"))
    assert "in the files of backbone: this one is tiny@" in study.run_here("--trials", "1")[1]
    assert len(study.studies()) == 3 and len(study.trials()) == 2

    # A study that was recorded before files were compared takes those that it finds.
    words.write_text(known)
    drop_attribute(home, "inputs")
    without_last_row(data / "ids-sst-dev.csv")
    assert "study tiny has its 2 trials" in study.run_here("--trials", "2")[1]
    (data / "ids-sst-dev.csv").write_text(before)
    assert "in the files of data.path" in study.run_here("--trials", "1")[1]


def drop_attribute(home, key: str) -> None:
    """Make studies as they were before an attribute was written."""
    import sqlite3

    with sqlite3.connect(home / "optuna.db", timeout=60) as connection:
        connection.execute("delete from study_user_attributes where key = ?", (key,))
    connection.close()


def test_files_that_change_while_a_study_runs_stop_it(tmp_path, home):
    study = Study(tmp_path / "study", home, steps=100, epochs=500, more=POINTS).furnished()
    dev = study.file.parent / "data" / "ids-sst-dev.csv"
    study.start("--jobs", "1", "--trials", "2")
    study.wait_for("trial 0 epoch 1:")
    before = without_last_row(dev)
    storage = f"sqlite:///{home}/optuna.db"
    theirs = optuna.load_study(study_name="tiny", storage=storage)
    theirs.tell(0, state=optuna.trial.TrialState.FAIL)  # so that the next one begins
    code, said = study.end()
    assert code == 2 and "its files have changed since the study began" in said
    assert [state for _, state, _ in study.trials()] == ["FAIL", "RUNNING"]
    assert study.runs()["trial 1"] == "KILLED"

    dev.write_text(before)
    code, said = study.run_until_trained(1, "--jobs", "1", "--trials", "2")
    assert code == 1 and "trial 1 resumed" in said and "trial 1 epoch 1:" in said
