"""Fetching the paper's data files from the course's repository, with commit and digests kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..common.paths import new_folder, replace_folder
from ..errors import InputError
from ..tasks.builtin import TASKS
from .files import FileReport, check_data
from .github import API, RAW, Blob, Repository

SOURCE = "gpoesia/minbert-default-final-project"  # the course's handout (CS224N, Stanford)
FOLDER = "data"  # where the files lie in it
NOTE = "pulled.json"
NEEDED = tuple(f.name for task in TASKS for f in (*task.train, task.dev))
# Predictions read the test files. Nothing reads the last two; they are the paper's, too.
OTHERS = (
    *(task.test.name for task in TASKS),
    *("ids-cfimdb-dev.csv", "ids-cfimdb-test-student.csv"),
)
_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class DataPull:
    """What :func:`pull_data` brought.

    Attributes:
        revision: the commit.
        sha256: of each file, in hex.
        missing: files that the source does not have; no training needs them.
        files: what was found in them, as :func:`minbert.check_data` says it.
    """

    folder: Path
    repository: str
    revision: str
    sha256: Mapping[str, str]
    missing: tuple[str, ...]
    files: tuple[FileReport, ...]


def pull_data(
    folder: str | Path,
    repository: str = SOURCE,
    revision: str | None = None,
    api: str | None = None,
    raw: str | None = None,
    progress: Callable[[str, int], object] | None = None,
) -> DataPull:
    """Fetch the paper's data files into a folder and check them.

    The folder appears whole or not at all: what an earlier pull left there stays until then. Each
    file is compared with its git hash in the commit. The commit and the sha256 of every file are
    kept in ``pulled.json``.

    Args:
        folder: a new folder, an empty one, or the untouched result of an earlier pull.
        repository: OWNER/REPO on GitHub, with the files in its folder ``data``.
        revision: a branch, tag or commit; the default branch if not given.
        api, raw: addresses of GitHub's REST API and of its files; the public ones if not given.
        progress: called with each file's name and size in bytes before it is fetched.

    Raises:
        InputError: the folder holds something else or cannot be written; GitHub does not answer,
            or has no such repository, revision or file; a file arrived damaged or cannot be used.
    """
    source = Repository(repository, api or API, raw or RAW)
    try:
        target = _target(folder)
        commit = source.commit(revision)
        blobs = source.files(commit, FOLDER)
        _refuse_incomplete(repository, commit, blobs)
        with _beside(target) as (new, old):
            digests = _fetch(source, commit, blobs, new, progress)
            reports = _check(new, repository)
            note = {"repository": repository, "revision": commit, "sha256": digests}
            (new / NOTE).write_text(json.dumps(note, indent=2) + "\n", "utf-8")
            replace_folder(new, target, old)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{folder}: the files cannot be written there ({reason})") from None
    missing = tuple(name for name in OTHERS if name not in blobs)
    return DataPull(Path(folder), repository, commit, digests, missing, tuple(reports))


def _target(folder: str | Path) -> Path:
    """Return the folder to be made or replaced, links followed.

    Raises:
        InputError: something is there that must stay.
    """
    if str(folder) == "demo":
        raise InputError("demo: that names the embedded corpus; give another folder, such as data")
    target = Path(os.path.realpath(folder))
    if os.path.lexists(target) and not target.is_dir():
        raise InputError(f"{folder}: is not a folder; give a new or an empty one")
    here = Path.cwd()
    if os.path.ismount(target) or target == here or target in here.parents:
        raise InputError(
            f"{folder}: a folder that is in use cannot be replaced as a whole; give one inside it, "
            f"such as {os.path.join(folder, 'data')}"
        )
    if why := _in_the_way(target):
        raise InputError(f"{folder}: {why}; give a new or an empty folder, or move it away")
    return target


def _in_the_way(target: Path) -> str | None:
    """Say what would be lost if a folder were replaced; None if that is nothing."""
    names = sorted(os.listdir(target)) if target.is_dir() else []
    pulled = _pulled(target) if names else {}
    for name in names:
        if name == NOTE and pulled:
            continue
        if name not in pulled:
            return f"it holds {name}, which no pull has brought"
        if not (target / name).is_file() or _digest(target / name) != pulled[name]:
            return f"its {name} was changed after it was pulled"
    return None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _pulled(target: Path) -> dict[str, str]:
    """Return the digests of an earlier pull's files; empty if there was none."""
    note = target / NOTE
    try:
        digests = json.loads(note.read_text("utf-8"))["sha256"] if note.is_file() else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return digests if isinstance(digests, dict) else {}


def _refuse_incomplete(repository: str, commit: str, blobs: Mapping[str, Blob]) -> None:
    lacking = [name for name in NEEDED if name not in blobs]
    if lacking:
        raise InputError(
            f"data: {repository} could not be pulled: it has no {FOLDER}/{lacking[0]} at commit "
            f"{commit}; a training needs {', '.join(NEEDED)}"
        )


@contextmanager
def _beside(target: Path) -> Iterator[tuple[Path, Path]]:
    """Make a folder to fill on the target's disk, and name a place for what is there now; both are
    gone afterwards, and folders made for them if they stayed empty."""
    made = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = new_folder(target.parent, f".{target.name}.pull-")
    try:
        new = part / "new"
        new.mkdir()
        yield new, part / "old"
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


def _fetch(
    source: Repository,
    commit: str,
    blobs: Mapping[str, Blob],
    folder: Path,
    progress: Callable[[str, int], object] | None,
) -> dict[str, str]:
    digests = {}
    for name in (n for n in (*NEEDED, *OTHERS) if n in blobs):
        if progress:
            progress(name, blobs[name].size)
        digests[name] = source.fetch(commit, f"{FOLDER}/{name}", blobs[name], folder / name)
        with (folder / name).open("rb") as file:
            if file.read(len(_LFS)) == _LFS:
                raise InputError(
                    f"data: {source.name} could not be pulled: its {FOLDER}/{name} is kept in Git "
                    "LFS, which is not read; give a repository that holds the file itself"
                )
    return digests


def _check(folder: Path, repository: str) -> list[FileReport]:
    try:
        return check_data(str(folder))
    except InputError as error:
        found = str(error).replace(f"{folder}{os.sep}", "")  # that folder goes away
        raise InputError(f"data: {repository} has files that cannot be used: {found}") from None
