"""Notes (Markdown) that Optuna dashboard shows on a study and on each trial.

Written in the dashboard's own format, not by its `save_note`: that imports the whole dashboard,
which takes seconds, and reads every note of the study to write one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.text import markdown, paragraph

if TYPE_CHECKING:
    import optuna

_OURS = "[//]: # (mtl)"  # Markdown that shows nothing: a note that nobody else has changed
_PIECE = 2045  # characters of a system attribute


def write_note(study: optuna.Study, body: str, trial_id: int | None = None) -> None:
    """Put a note on the study, or on the trial with this id.

    A note that a person wrote, or changed so that its first line is another, stays as it is.
    """
    storage, study_id = study._storage, study._study_id
    prefix = "dashboard:" if trial_id is None else f"dashboard:{trial_id}:"
    known = storage.get_study_system_attrs(study_id) if trial_id is None else {}
    before = known.get(f"{prefix}note_str:0", "")
    if before and not before.startswith(_OURS):
        return
    text = f"{_OURS}\n\n{body}"
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    old = sum(key.startswith(f"{prefix}note_str:") for key in known)
    pieces += [""] * (old - len(pieces))
    for index, piece in enumerate(pieces):
        storage.set_study_system_attr(study_id, f"{prefix}note_str:{index}", piece)
    version = known.get(f"{prefix}note_ver", 0) + 1
    storage.set_study_system_attr(study_id, f"{prefix}note_ver", version)


def trial_note(label: str, address: str) -> str:
    """Say what a trial is (``label``) and where its run in MLflow is (``address``)."""
    return f"**{markdown(label) or 'as the study file says'}**\n\n[Its run in MLflow]({address})"


def study_note(description: str, address: str) -> str:
    """Say what a study is, and where the list of its runs in MLflow is."""
    return f"{paragraph(description)}\n\n[Its runs in MLflow]({address})"
