"""Artifacts of runs that were deleted or exist nowhere, and pictures of trials that are no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..trials.states import COMPLETE, TO_MLFLOW
from .checkpoints import goes_on
from .removal import Removal
from .runs import Run, forget_run

if TYPE_CHECKING:
    from pathlib import Path

    from ..storage.home import Home
    from .runs import Runs
    from .studies import Studies

_RUN_ID = re.compile(r"[0-9a-f]{32}$")
_PICTURE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def tidy_runs(removal: Removal, home: Home, studies: Studies | None, runs: Runs | None) -> None:
    """Go through the runs' artifacts; what MLflow calls deleted goes out of its store, too."""
    if runs is None:
        _say_why(removal, home)
        return
    for run in runs.by_id.values():
        if run.deleted:
            _tidy_deleted(removal, home, studies, runs, run)
    named = studies.runs_named() if studies is not None else set()
    for experiment in removal.children(home.mlflow_artifacts):
        for folder in removal.children(experiment):
            lost = _RUN_ID.match(folder.name) and folder.name not in runs.by_id
            if lost and removal.is_old([folder]):
                _tidy_lost(removal, runs, named, folder)


def _tidy_lost(removal: Removal, runs: Runs, named: set[str], folder: Path) -> None:
    """Remove what a run left that the store does not know; but not what another store may know."""
    if folder.name in named:
        removal.leave(folder, "a study says that it is its run's, which MLflow does not know")
    elif folder.parent not in runs.experiments:
        removal.leave(folder, "MLflow's store has no experiment there: it may be another store's")
    elif runs.since is None or not removal.touched(folder, runs.since):
        removal.leave(folder, "older than all that MLflow's store knows: it may be another store's")
    else:
        removal.drop("artifacts", "artifacts of a run that exists nowhere", folder)


def _say_why(removal: Removal, home: Home) -> None:
    from ..common.masking import masked
    from ..tracking.store import sqlite_file

    if sqlite_file(home.mlflow_uri) is None:
        server = masked(home.mlflow_uri)
        why = f"MLflow is {server}: `mlflow gc` there tidies its runs"
        removal.leave(home.mlflow_artifacts, why)
    elif any(home.mlflow_artifacts.glob("*/*")):
        why = "there is no mlflow.db that says which runs these are of"
        removal.leave(home.mlflow_artifacts, why)


def _tidy_deleted(
    removal: Removal, home: Home, studies: Studies | None, runs: Runs, run: Run
) -> None:
    folder = run.folder
    if folder is None or home.path not in folder.parents:
        where = home.mlflow_artifacts / run.id if folder is None else folder
        why = "a deleted run's artifacts outside of the home: they may be another's"
        removal.leave(where, why)
    elif run.id in runs.registered:
        removal.leave(folder, "a deleted run of which a model is registered")
    elif run.study is None or studies is None:
        if goes_on(home, run.id) and run.status != TO_MLFLOW[COMPLETE]:
            removal.leave(folder, "a deleted run whose training can be resumed")
        else:
            _remove_run(removal, home, run, folder)
    else:
        with studies.unattended(run.study, hold=removal.remove) as busy:
            if busy is not None:
                removal.leave(folder, f"a dispatcher works on study {run.study} ({busy})")
            elif run.id in studies.runs_needed():
                removal.leave(folder, f"a deleted run that study {run.study} goes on with")
            else:
                _remove_run(removal, home, run, folder)


def _remove_run(removal: Removal, home: Home, run: Run, folder: Path) -> None:
    gone = removal.drop("run", f"deleted run {run.name}", folder)
    if gone and removal.remove:
        forget_run(home, run.id)


def tidy_pictures(removal: Removal, home: Home, studies: Studies | None) -> None:
    """Go through the pictures that hang on Optuna's trials."""
    pictures = [p for p in removal.children(home.optuna_artifacts) if _PICTURE.match(p.name)]
    if not pictures:
        return
    if studies is None:
        why = "no study is recorded here that says whose these are; is MTL_STORAGE set as it was?"
        removal.leave(home.optuna_artifacts, why)
        return
    hung = studies.pictures()
    for path in pictures:
        # One that was written a moment ago is noted at its trial only after that.
        if path.name not in hung and removal.is_old([path]):
            removal.drop("picture", "picture of a trial that is no more", path)
