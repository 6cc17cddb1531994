"""Artifacts of runs that were deleted or exist nowhere, and pictures of trials that are no more."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .checkpoints import goes_on
from .runs import Run, forget_run
from .yard import Yard

if TYPE_CHECKING:
    from pathlib import Path

    from ..storage.home import Home
    from .runs import Runs
    from .studies import Studies

_RUN_ID = re.compile(r"[0-9a-f]{32}$")
_PICTURE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def tidy_runs(yard: Yard, home: Home, studies: Studies | None, runs: Runs | None) -> None:
    """Go through the runs' artifacts; what MLflow calls deleted goes out of its store, too."""
    if runs is None:
        _say_why(yard, home)
        return
    for run in runs.by_id.values():
        if run.deleted:
            _tidy_deleted(yard, home, studies, runs, run)
    for experiment in yard.children(home.mlflow_artifacts):
        for folder in yard.children(experiment):
            lost = _RUN_ID.match(folder.name) and folder.name not in runs.by_id
            if lost and yard.is_old([folder]):
                yard.drop("artifacts", "artifacts of a run that exists nowhere", folder)


def _say_why(yard: Yard, home: Home) -> None:
    from ..common.masking import masked
    from ..tracking.store import sqlite_file

    if sqlite_file(home.mlflow_uri) is None:
        server = masked(home.mlflow_uri)
        yard.leave(home.mlflow_artifacts, f"MLflow is {server}: `mlflow gc` there tidies its runs")
    elif any(home.mlflow_artifacts.glob("*/*")):
        yard.leave(home.mlflow_artifacts, "there is no mlflow.db that says which runs these are of")


def _tidy_deleted(
    yard: Yard, home: Home, studies: Studies | None, runs: Runs, run: Run
) -> None:
    folder = run.folder
    if folder is None or home.path not in folder.parents:
        where = home.mlflow_artifacts / run.id if folder is None else folder
        yard.leave(where, "a deleted run's artifacts outside of the home: `mlflow gc` removes them")
    elif run.id in runs.registered:
        yard.leave(folder, "a deleted run of which a model is registered")
    elif run.study is None or studies is None:
        if goes_on(home, run.id) and run.status != "FINISHED":
            yard.leave(folder, "a deleted run whose training can be resumed")
        else:
            _remove_run(yard, home, run, folder)
    else:
        with studies.unattended(run.study, hold=yard.remove) as busy:
            if busy is not None:
                yard.leave(folder, f"a dispatcher works on study {run.study} ({busy})")
            elif run.id in studies.runs_needed():
                yard.leave(folder, f"a deleted run that study {run.study} goes on with")
            else:
                _remove_run(yard, home, run, folder)


def _remove_run(yard: Yard, home: Home, run: Run, folder: Path) -> None:
    gone = yard.drop("run", f"deleted run {run.name}", folder)
    if gone and yard.remove:
        forget_run(home, run.id)


def tidy_pictures(yard: Yard, home: Home, studies: Studies | None) -> None:
    """Go through the pictures that hang on Optuna's trials."""
    pictures = [p for p in yard.children(home.optuna_artifacts) if _PICTURE.match(p.name)]
    if not pictures:
        return
    if studies is None:
        why = "no study is recorded here that says whose these are; is MTL_STORAGE set as it was?"
        yard.leave(home.optuna_artifacts, why)
        return
    hung = studies.pictures()
    for path in pictures:
        # One that was written a moment ago is noted at its trial only after that.
        if path.name not in hung and yard.is_old([path]):
            yard.drop("picture", "picture of a trial that is no more", path)
