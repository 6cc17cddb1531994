"""What the machine refuses: disks that are full or read-only, databases that are damaged.

On real file systems, which only root may mount: elsewhere those tests are skipped.

Room: mtl/dispatch, mtl/common.
"""

import errno
import hashlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from minbert import InputError, train
from minbert.training.checkpoint import LAST, PREVIOUS, Snapshot, read_snapshot, write_snapshot
from mtl.dispatch.train import train_once
from mtl.storage.home import Home
from mtl.storage.sqlite import open_reading
from support import small
from support.disks import Disk
from support.invariants import broken, differences

TWO = ("--jobs", "1", "--trials", "2")
READING = (
    ("study", "status", "tiny"),
    ("study", "best", "tiny"),
    ("study", "export", "tiny"),
    ("study", "list"),
)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk", 64)
    yield disk
    disk.close()


# ---- a full disk --------------------------------------------------------------------------------


@pytest.mark.usefixtures("own_workers")  # a worker that stayed would hold the disk
def test_a_study_stops_on_a_full_disk_and_ends_as_if_nothing_had_been(
    disk, here, reference
):
    study = reference.elsewhere(disk.path / "home").furnished()
    study.start(*TWO)
    study.wait_for("trial 0 epoch 2")
    disk.fill()
    code, out = study.end()

    (line,) = [line for line in out.splitlines() if line.startswith("mtl: ")]
    assert code == 2 and "Traceback" not in out, out
    assert "no space" in line and str(disk.path) in line and "same command again" in line, line
    assert {state for _, state, _ in study.trials()} <= {"RUNNING", "COMPLETE"}
    for command in READING:
        done = here(disk.path, *command)
        assert done.code in (0, 1) and done.err == "", done  # 1: no trial has ended yet

    disk.enlarge(128)
    code, out = study.run_here(*TWO)

    assert code == 0, out
    assert broken(study, 2) == []
    assert differences(study, reference) == []


def test_a_checkpoint_that_does_not_fit_leaves_those_before(disk):
    last, previous = disk.path / LAST, disk.path / PREVIOUS
    for number in (1, 2):
        write_snapshot(Snapshot({"a": torch.zeros(1000)}, {"n": number}), last, keep=previous)
    disk.fill(leave=1 << 20)
    large = Snapshot({"a": torch.zeros(1 << 20)}, {"n": 3})
    with pytest.raises(OSError, match="No space left") as caught:
        write_snapshot(large, last, keep=previous)
    assert caught.value.errno == errno.ENOSPC
    assert read_snapshot(last).state == {"n": 2} and read_snapshot(previous).state == {"n": 1}
    assert {file.name for file in disk.path.iterdir()} == {LAST, PREVIOUS, "filler"}


def test_a_training_goes_on_when_there_is_room_again(disk, tmp_path):
    base = small.folder(tmp_path)
    config = small.config(base, **{"train.epochs": 2, "train.steps_per_epoch": 3})
    whole = [report.scores for report in train(config, cache_dir=tmp_path / "cache")]
    given = {"cache_dir": tmp_path / "cache", "checkpoint_dir": disk.path}
    training = train(config, **given)
    first = next(training).scores
    disk.fill()
    with pytest.raises(OSError, match="No space left"):
        list(training)
    (disk.path / "filler").unlink()
    again = [report.scores for report in train(config, **given)]
    assert first == whole[0] and again == whole


class FillingWatcher:
    """Fills a disk at a training's first evaluation."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.run_id = disk, ""

    def started(self, run_id, total_steps, demo):
        self.run_id = run_id

    def step(self, report):
        pass

    def evaluating(self):
        pass

    def evaluated(self, report):
        if report.epoch == 1:
            self.disk.fill()


def test_a_tracked_training_says_how_it_goes_on(disk, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_HOME", str(disk.path / "home"))
    home = Home.resolve()
    base = small.folder(tmp_path)
    config = small.config(base, **{"train.epochs": 2, "train.steps_per_epoch": 3})
    whole = max(r.scores["score"] for r in train(config, cache_dir=tmp_path / "cache"))
    watcher = FillingWatcher(disk)
    with pytest.raises(InputError) as refused:
        train_once(config, home, watcher, profile=None, resume=None)
    assert "no space" in str(refused.value) and f"--resume {watcher.run_id}" in str(refused.value)
    (disk.path / "filler").unlink()
    disk.fill = lambda: None
    done = train_once(config, home, watcher, profile=None, resume=watcher.run_id)
    assert (done.state, done.scores["score"]) == ("complete", whole)


# ---- a read-only home ---------------------------------------------------------------------------


def test_a_read_only_home_can_be_read(disk, tmp_path, here, reference):
    shutil.copytree(reference.home, disk.path / "home")
    wanted = [here(reference.home.parent, *command).out for command in READING]
    disk.make_read_only()
    assert [here(disk.path, *command, MTL_HOME=str(disk.path / "home")).out
            for command in READING] == wanted  # fmt: skip
    page = tmp_path / "page.html"
    assert here(disk.path, "study", "report", "tiny", "-o", page).code == 0
    assert "trial 1" in page.read_text(encoding="utf-8")
    found = here(disk.path, "doctor")
    assert found.code == 1 and "Read-only file system" in found.out
    assert "optuna.db: " in found.out and "damaged" not in found.out
    here(disk.path, "study", "run", reference.file).refused("Read-only", "MTL_HOME")
    here(disk.path, "train").refused("Read-only", "MTL_HOME")


def test_what_a_killed_writer_left_is_read_where_nothing_can_be_written_too(disk):
    file = disk.path / "a.db"
    pid = os.fork()
    if pid == 0:
        writer = sqlite3.connect(file)
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("CREATE TABLE t AS SELECT 7 AS x")
        writer.commit()
        os._exit(0)  # as a kill does: the log stays
    os.waitpid(pid, 0)
    before = {f.name: f.read_bytes() for f in disk.path.iterdir() if "-shm" not in f.name}
    assert before.keys() == {"a.db", "a.db-wal"}
    with closing(open_reading(file)) as connection:
        assert connection.execute("SELECT x FROM t").fetchall() == [(7,)]
    assert {f.name: f.read_bytes() for f in disk.path.iterdir() if "-shm" not in f.name} == before
    (disk.path / "a.db-shm").unlink()
    disk.make_read_only()
    with closing(open_reading(file)) as connection:  # from a copy of both
        assert connection.execute("SELECT x FROM t").fetchall() == [(7,)]
    assert {f.name: f.read_bytes() for f in disk.path.iterdir()} == before


# ---- damaged databases --------------------------------------------------------------------------


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    for page in range(0, len(data), 4096):  # the kind of every page but the first, which has 100
        data[page or 100] ^= 0x08
    file.write_bytes(data)


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = {
    "flipped": (_flip, "is damaged"),
    "half": (lambda file: os.truncate(file, file.stat().st_size // 2), "is damaged"),
    "text": (lambda file: file.write_text("not a database\n" * 1000), "is damaged"),
    "folder": (_folder, "is no file"),
}


def _digests(home: Path) -> dict[str, str]:
    files = [file for file in home.glob("*.db*") if file.is_file() and file.stat().st_size]
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if not file.name.endswith("-shm")
    }


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_database_is_named_and_left_as_it_is(tmp_path, here, reference, kind):
    home = tmp_path / "home"
    shutil.copytree(reference.home, home)
    damage, words = DAMAGES[kind]
    damage(home / "optuna.db")
    before = _digests(home)
    for command in (*READING, ("study", "run", reference.file, "--trials", "5")):
        here(tmp_path, *command).refused(str(home / "optuna.db"), words)
    found = here(tmp_path, "doctor")
    assert found.code == 1 and words in found.out
    assert _digests(home) == before


def test_a_log_of_garbage_is_no_log_and_stays(tmp_path, here, reference):
    home = tmp_path / "home"
    shutil.copytree(reference.home, home)
    wanted = here(reference.home.parent, "study", "export", "tiny").out
    (home / "optuna.db-wal").write_bytes(os.urandom(50_000))
    before = _digests(home)
    assert here(tmp_path, "study", "export", "tiny").out == wanted
    assert _digests(home) == before


def test_an_empty_file_holds_nothing(tmp_path, here):
    (tmp_path / "home").mkdir()
    (tmp_path / "home/optuna.db").touch()
    here(tmp_path, "study", "status", "tiny").refused("no study 'tiny' is recorded")


@pytest.mark.parametrize(
    ("column", "value"), [("value_json", "{"), ("value_json", b"\xff"), ("key", b"\xc3\x28")]
)
def test_damage_that_only_a_reader_finds_is_no_fault_of_the_program(
    tmp_path, here, reference, column, value
):
    home = tmp_path / "home"
    shutil.copytree(reference.home, home)
    with closing(sqlite3.connect(home / "optuna.db")) as connection:
        connection.execute(
            f"update study_user_attributes set {column} = cast(? as text) where key = 'settings'",
            (value,),
        )
        connection.commit()
    here(tmp_path, "study", "status", "tiny").refused("cannot be read", "mtl doctor", str(home))
