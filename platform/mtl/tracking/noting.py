"""Writing down in Optuna which runs a study and its trials have in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..trials.attributes import attributes_of, run_of, set_run, trial_of
from ..trials.notes import study_note, trial_note, write_note
from .outbox import Outbox, Run

if TYPE_CHECKING:
    import optuna

    from .study_tracker import StudyTracker


def note_run(
    study: optuna.Study, number: int, run: Run, address: str, late: Mapping[int, str]
) -> None:
    """Write down at a trial which run it has, and where a browser finds it.

    Args:
        late: see `mtl.trials.attributes.late_runs`.
    """
    trial = trial_of(study, number)
    if run_of(trial, late) == run.run_id:
        return
    set_run(study, trial, run.run_id)
    write_note(study, trial_note(attributes_of(trial).get("setting", ""), address), trial._trial_id)


def note_own_run(study: optuna.Study, run: Run, tracker: StudyTracker) -> None:
    """Write down at a study which run it has, and where a browser finds the list of its runs."""
    path = tracker.list_path(run)
    known = study.user_attrs
    if known.get("parent_run_id") == run.run_id and known.get("runs") == path:
        return
    study.set_user_attr("parent_run_id", run.run_id)
    study.set_user_attr("runs", path)
    write_note(study, study_note(known.get("description", ""), tracker.root + path))


def number_of(box: Outbox) -> int | None:
    """Return the number of the trial that an outbox belongs to; None for the study's own."""
    number = box.folder.name.partition("-")[2]
    return int(number) if number.isdigit() else None
