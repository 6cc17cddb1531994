"""Runs of trials that have ended, made anew where MLflow has lost them.

MLflow's store was put aside, or the study's runs were purged. Optuna's storage still has each
trial's values, scores and times; the files of its run lie in the home. What only MLflow had is
lost: the curves, the digests of the data, and what people wrote on the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..trials.attributes import attributes_of
from ..trials.labels import folder_name
from ..trials.states import FROM_OPTUNA
from . import metric_keys as keys, tag_keys
from .outbox import Outbox
from .store import sqlite_file

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ..storage.home import Home
    from .study_tracker import StudyTracker


def record_anew(
    tracker: StudyTracker, study: str, own: Outbox, trial: FrozenTrial, run_id: str, home: Home
) -> Outbox:
    """Record what is to become of an ended trial's run after its study's was made anew: the same
    under the study's new run if it is there, else a new one with all that is known.

    Args:
        study: its name. own: the study's outbox.
        run_id: what the trial's run was.
    """
    box, known = tracker.trial_box(own.folder.name, trial.number), attributes_of(trial)
    tracker.open_trial(
        box,
        study=study,
        number=trial.number,
        params=known.get("config") or {},
        tags={tag_keys.PROFILE: known.get("profile")},
        parent=own,
        run_id=run_id,
        label=known.get("setting") or "",
        began=_milliseconds(trial.datetime_start),
        only_anew=True,
    )
    at = _milliseconds(trial.datetime_complete)
    points, step = _points(known), known.get("best_epoch") or 0
    if points:
        box.append("metrics", step=step, values=points, time=at, anew=True)
    if (folder := _files_of(home, study, run_id)) is not None:
        box.append("adopt", folder=str(folder), anew=True)
    state = FROM_OPTUNA[trial.state.name]
    tracker.end(box, state, known.get("reason"), at, anew=True)
    return box


def _points(known: Mapping[str, Any]) -> dict[str, float]:
    points = {keys.final(name): value for name, value in (known.get("scores") or {}).items()}
    score = (known.get("estimates") or {}).get("score") or {}
    points |= {keys.final(f"score_{end}"): score[end] for end in ("low", "high") if end in score}
    named = {
        keys.TRAINABLE: known.get("trainable_parameters"),
        keys.final("epoch"): known.get("best_epoch"),
        keys.final("model_bytes"): known.get("model_bytes"),
        keys.BEST_SCORE: (known.get("scores") or {}).get("score"),
    }
    points |= {name: value for name, value in named.items() if value is not None}
    return {name: float(value) for name, value in points.items()}


def _files_of(home: Home, study: str, run_id: str) -> Path | None:
    """Return the folder of a run's files, where it is in the home."""
    if sqlite_file(home.mlflow_uri) is None:
        return None
    return home.mlflow_artifacts / folder_name(study) / run_id / "artifacts"


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
