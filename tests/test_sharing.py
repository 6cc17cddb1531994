"""A home that several users share: files follow the umask, looking leaves nothing behind.

Room: mtl/storage.
"""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors.torch import load_file

from minbert.common.paths import new_folder
from minbert.common.weights_file import save_weights
from mtl.storage.home import Home
from mtl.storage.optuna import open_storage
from mtl.tracking.outbox import Outbox
from support.homes import furnish
from support.study_runs import write_study
from support.tracking_samples import make_store

pytestmark = pytest.mark.timeout(900)  # whole processes, one after another

LOOKS = [
    *(["study", "list"], ["study", "status", "tiny"], ["study", "best", "tiny", "--json"]),
    *(["study", "export", "tiny", "-o", "{mine}/t.csv"], ["study", "compare", "tiny"]),
    *(["study", "plan", "{file}"], ["doctor"], ["gc", "--dry-run"]),
]
REPORT = ["study", "report", "tiny", "-o", "{mine}/r.html"]
# What a user types, one command after another, in one process.
_COMMANDS = """
import json, sys
from pathlib import Path
from support.commands import mtl_here
for home, *args in json.loads(sys.argv[1]):
    print(json.dumps(vars(mtl_here(Path.cwd(), *args, MTL_HOME=home))))
"""


@pytest.fixture(params=[0o002, 0o027, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_databases_weights_and_folders_follow_the_umask(umask, home, tmp_path):
    place = Home.resolve()
    open_storage(place)
    if umask == 0o002:  # MLflow's migrations take seconds
        make_store(home / "mlflow.db")
    save_weights({"a": torch.ones(3)}, tmp_path / "w.safetensors", {"format": "pt"})
    assert load_file(tmp_path / "w.safetensors")["a"].tolist() == [1, 1, 1]
    box = Outbox(place.spool / "box")
    box.append("end")
    box.mark_sent(1)
    folder = new_folder(tmp_path, ".x-", ".part")
    assert folder.name.startswith(".x-") and folder.name.endswith(".part")
    files = [tmp_path / "w.safetensors", *(p for p in home.rglob("*") if p.is_file())]
    assert {"optuna.db", "journal.jsonl", "sent"} <= {file.name for file in files}
    assert {_mode(file) for file in files} == {0o666 & ~umask}
    assert {_mode(p) for p in (folder, *home.rglob("*")) if p.is_dir()} == {0o777 & ~umask}


# ---- two users ----------------------------------------------------------------------------------


class Lab:
    """A home that two users of a group share, and a study in a folder that both read.

    They have no names, and Anna has no HOME. They may read whatever there is, since this
    interpreter may lie in a folder of root's; what they may write is as the system says.
    """

    anna, bob, group = 54_321, 54_322, 54_300

    def __init__(self, folder: Path) -> None:
        self.file = write_study(folder, epochs=1)
        self.home = folder / "home"
        furnish(self.home)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, self.anna, self.group)
            path.chmod(0o2775 if path.is_dir() else 0o664)
        folder.chmod(0o755)
        for user in (self.anna, self.bob):
            (folder / str(user)).mkdir()
            os.chown(folder / str(user), user, self.group)

    def types(self, user: int, *commands: list[str], more: "Typed" = ()) -> list[dict]:
        """Run commands of `mtl` as a user, in one process; return how each ended.

        Args:
            more: labs of the same files, each with commands that are run there afterwards.
        """
        typed = [(self, command) for command in commands] + [*more]
        given = json.dumps([[str(lab.home), *self._filled(user, c)] for lab, c in typed])
        said = self._python(user, "-c", _COMMANDS, given)
        return [json.loads(line) for line in said.splitlines()]

    def starts(self, user: int, command: list[str]) -> str:
        """Run one in a process of its own, as the user's shell does; return what it printed."""
        return self._python(user, "-m", "mtl", *self._filled(user, command))

    def _filled(self, user: int, command: list[str]) -> list[str]:
        mine = self.file.parent / str(user)
        return [arg.format(mine=mine, file=self.file) for arg in command]

    def _python(self, user: int, *args: str) -> str:
        mine = self.file.parent / str(user)
        done = subprocess.run(
            ["setpriv", f"--reuid={user}", f"--regid={self.group}", "--clear-groups",
             "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search",
             sys.executable, *args],
            cwd=mine, umask=0o002, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                 "TMPDIR": str(mine), "MTL_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
            | ({"HOME": str(mine)} if user == self.bob else {}),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert not done.stderr, done.stderr  # of Matplotlib, say, that it has no folder
        return done.stdout

    def query(self, sql: str) -> str:
        with closing(sqlite3.connect(f"file:{self.home}/mlflow.db?mode=ro", uri=True)) as store:
            return store.execute(sql).fetchone()[0]

    def tree(self) -> dict[str, tuple]:
        """Everything in the home, with its owner and mode, and what changes when it is written."""
        found = {}
        for path in sorted(self.home.rglob("*")):
            seen = path.lstat()
            written = (seen.st_size, seen.st_mtime_ns) if path.is_file() else ()
            found[str(path.relative_to(self.home))] = (seen.st_uid, seen.st_mode, *written)
        return found

    def copied(self) -> "Lab":
        """Return the same lab with a home of its own that holds the same."""
        other = object.__new__(Lab)
        other.file, other.home = self.file, new_folder(self.home.parent, "home-")
        shutil.copytree(self.home, other.home, dirs_exist_ok=True)
        for path in (other.home, *other.home.rglob("*")):
            there = self.home / path.relative_to(other.home)
            os.chown(path, there.stat().st_uid, self.group)
            path.chmod(_mode(there))  # and the bit that hands the group on, which chown takes
        return other


Typed = Sequence[tuple[Lab, list[str]]]


def _run(trials):
    return ["study", "run", "{file}", "--jobs", "1", "--trials", str(trials)]


@pytest.fixture(scope="module")
def begun():
    """A home in which one of them has run a trial."""
    if os.geteuid() or not shutil.which("setpriv"):
        pytest.skip("users are changed by root, with setpriv")
    with TemporaryDirectory(prefix="mtl-lab-") as folder:  # pytest's are closed to other users
        lab = Lab(Path(folder))
        ran, = lab.types(lab.anna, _run(1))
        assert ran["code"] == 0 and "1 complete of 1" in ran["out"], ran
        yield lab


def test_what_one_begins_the_other_goes_on_with(begun):
    """And what they run is recorded though they have no name, and one of them no HOME."""
    lab = begun.copied()
    run_id = lab.query("select run_uuid from runs where name like 'trial 0%'")
    ran, promoted, predicted = lab.types(
        lab.bob, _run(2), ["study", "promote", "tiny", "--trial", "0"],
        ["predict", run_id, "--data", str(lab.file.parent / "data"), "-o", "{mine}/p"],
    )  # fmt: skip
    assert ran["code"] == 0 and "2 complete of 2" in ran["out"], ran
    assert promoted["code"] == predicted["code"] == 0, (promoted, predicted)
    ran, promoted = lab.types(lab.anna, _run(3), ["study", "promote", "tiny", "--trial", "1"])
    assert ran["code"] == promoted["code"] == 0, (ran, promoted)
    closed = [path for path, (_, mode, *_) in lab.tree().items()
              if mode >> 3 & 7 != mode >> 6 & 7 or stat.S_ISDIR(mode) and not mode & stat.S_ISGID]
    assert not closed
    assert {owner for owner, *_ in lab.tree().values()} == {lab.anna, lab.bob}


def test_looking_leaves_nothing(begun):
    """Also where the databases are their first user's alone, in a folder where others can make
    files; who would write then is told so."""
    shared, alone = begun.copied(), begun.copied()
    for name in ("optuna.db", "mlflow.db"):
        (shared.home / name).chmod(0o664)
        (alone.home / name).chmod(0o644)
    before = shared.tree(), alone.tree()
    assert "r.html" in shared.starts(shared.bob, REPORT)
    looks, writes = [REPORT, *LOOKS], [_run(2), ["study", "promote", "tiny"]]
    more = [(alone, command) for command in (*looks, *writes)]
    ended = shared.types(shared.bob, *looks, more=more)
    for looked in ended[: 2 * len(looks)]:
        assert not looked["err"] and looked["code"] in (0, 1), looked
    for refused in ended[2 * len(looks) :]:
        assert refused["code"] == 2 and refused["err"].count("\n") == 1, refused
        assert "cannot be written" in refused["err"], refused
    assert len(ended) == len(looks) + len(more)
    assert (shared.tree(), alone.tree()) == before
