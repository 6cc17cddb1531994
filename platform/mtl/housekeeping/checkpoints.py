"""Checkpoints that no training goes on from: of trials and trainings that ended, or are gone."""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.home import EXPERIMENT
from ..trials.states import COMPLETE, FAILED, RUNNING, TO_MLFLOW
from .removal import DAY, Removal

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ..storage.home import Home
    from .runs import Runs
    from .studies import Studies

KEEP_FAILED = 30 * DAY
"""How long a failed training can still be resumed, once its cause is mended."""

_TRIAL = re.compile(r"(\d+)(\.work|\.lock|\.scores)?$")  # a trial's folder, and what lies beside it
_RUN_ID = re.compile(r"[0-9a-f]{32}$")


def tidy_checkpoints(
    removal: Removal, home: Home, studies: Studies | None, runs: Runs | None
) -> None:
    """Go through the checkpoints, a study at a time and under its lease."""
    for folder in removal.children(home.checkpoints):
        if not folder.is_dir():
            continue
        if folder.name == EXPERIMENT:
            _tidy_trainings(removal, folder, runs)
        elif studies is not None:
            _tidy_study(removal, folder, studies)
        elif _by_trial(removal, folder):
            removal.leave(folder, "no study is recorded here; is MTL_STORAGE set as it was?")


def _tidy_study(removal: Removal, folder: Path, studies: Studies) -> None:
    if not _by_trial(removal, folder):
        return
    with studies.unattended(folder.name, hold=removal.remove) as busy:
        if busy is not None:
            removal.leave(folder, f"a dispatcher works on study {folder.name} ({busy})")
            return
        trials = studies.trials(folder.name)
        # Under the lease, looked at anew: the dispatcher of a moment ago may have gone on.
        for number, paths in _by_trial(removal, folder).items():
            what = _ended(number, trials)
            if what is None or (not _in(number, trials) and not removal.is_old(paths)):
                continue
            if any(path.suffix == ".lock" and _is_locked(path) for path in paths):
                removal.leave(paths[0], "a worker still holds its lock")
                continue
            removal.drop("checkpoint", f"{what} of {folder.name}", *paths)
        removal.forget_empty(folder)


def _by_trial(removal: Removal, folder: Path) -> dict[int, list[Path]]:
    """Return what lies there of each trial: its folder first, if there is one."""
    found: dict[int, list[Path]] = {}
    for path in removal.children(folder):
        if match := _TRIAL.match(path.name):
            found.setdefault(int(match[1]), []).append(path)
    return {number: sorted(paths) for number, paths in sorted(found.items())}


def _in(number: int, trials: dict[int, FrozenTrial] | None) -> bool:
    return trials is not None and number in trials


def _ended(number: int, trials: dict[int, FrozenTrial] | None) -> str | None:
    """Say in words what a trial is that needs no checkpoint; None if it may go on."""
    if trials is None:
        return f"trial {number}, as all that is left"
    if number not in trials:
        return f"trial {number}, which does not exist,"
    trial = trials[number]
    return f"trial {number} ({trial.state.name.lower()})" if trial.state.is_finished() else None


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _is_locked(file: Path) -> bool:
    """Whether a worker holds a lock file. The file stays as it is, unlike with FileLock."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# ---- trainings outside any study ----------------------------------------------------------------


def _tidy_trainings(removal: Removal, folder: Path, runs: Runs | None) -> None:
    trainings = [path for path in removal.children(folder) if _RUN_ID.match(path.name)]
    if runs is not None:
        for path in trainings:
            what = _ended_training(removal, path, runs)
            # One that ended a moment ago still tidies up behind itself.
            if what is not None and removal.is_old([path]):
                lock = _lock_of(path)
                removal.drop("training", what, path, *([lock] if lock.exists() else []))
    elif trainings:
        removal.leave(folder, "what became of these trainings is not recorded in this home")
        return
    removal.forget_empty(folder)


def _ended_training(removal: Removal, path: Path, runs: Runs) -> str | None:
    """Say in words what a training is that will not go on; None if it may be resumed, or runs."""
    if _is_locked(_lock_of(path)):
        return None
    run = runs.by_id.get(path.name)
    if run is None:
        return "training whose run does not exist"
    if run.status == TO_MLFLOW[COMPLETE]:
        return "training that is complete"
    if run.status == TO_MLFLOW[FAILED] and removal.is_old([path], KEEP_FAILED):
        return "training that failed long ago"
    return None


def goes_on(home: Home, run_id: str) -> bool:
    """Say whether a training outside any study has a checkpoint that it can go on from."""
    return (home.checkpoints / EXPERIMENT / run_id).is_dir()


def running_trainings(removal: Removal, home: Home, runs: Runs | None) -> list[str]:
    """Return the ids of trainings that seem to run now: something holds their locks, or their
    checkpoints are young, where a lock on another machine is not seen."""
    folders = [f for f in removal.children(home.checkpoints / EXPERIMENT) if f.is_dir()]
    names = [f.name for f in folders if _is_locked(_lock_of(f)) or not removal.is_old([f])]
    if runs is None:
        return names
    known = [runs.by_id[name] for name in names if name in runs.by_id]
    return [run.id for run in known if run.status == TO_MLFLOW[RUNNING]]
