"""Whose a trial is: asked for by a dispatcher, queued by a person for one, or neither.

Anybody may use Optuna's own interface on a study: queue a trial (`enqueue_trial`), ask for one
elsewhere, add one that has ended, or say how one ended. A dispatcher trains what it has asked for
and what was queued, and leaves the rest as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .attributes import set_attribute
from .states import RUNNING, TO_OPTUNA

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ASKED = "asked"
"""Hidden attribute of a trial: a dispatcher asked for it."""
QUEUED = "queued"
"""Hidden attribute of a trial that a person has queued, and a dispatcher has taken."""
ASKED_FROM = "asked_from"
"""User attribute of a study: from this number on, trials that were asked for bear the mark."""
TOLD = "told in Optuna by somebody else"
"""Why a trial has ended that no dispatcher ended."""


def new_trial(study: optuna.Study) -> int:
    """Create a trial that is seen from its first moment to be a dispatcher's; return its id."""
    from optuna.trial import TrialState, create_trial

    _read_anew(study)
    marked = create_trial(state=TrialState.RUNNING, system_attrs={f"mtl:{ASKED}": True})
    return study._storage.create_new_trial(study._study_id, marked)


def take_queued(study: optuna.Study, number: int) -> int | None:
    """Take a queued trial; return its id, or None if somebody else was quicker."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    _read_anew(study)
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    try:
        # Marked first: a dispatcher that is killed in between leaves it in the queue.
        for name in (ASKED, QUEUED):
            set_attribute(study, trial_id, name, True)
        taken = storage.set_trial_state_values(trial_id, TrialState.RUNNING)
    except UpdateFinishedTrialError:
        return None
    return trial_id if taken else None


def queued_params(trial: FrozenTrial) -> dict[str, Any]:
    """Return what a person has queued, by the parameters' names."""
    return {**trial.params, **(trial.system_attrs.get("fixed_params") or {})}


def is_ours(trial: FrozenTrial, known: Mapping[str, Any], asked_from: int | None) -> bool:
    """Say whether a dispatcher trains a trial, or has trained it.

    Args:
        known: its attributes.
        asked_from: the study's attribute of that name; None before any dispatcher wrote it.
    """
    if "config" in known:
        return True
    if trial.state.name != TO_OPTUNA[RUNNING]:
        return False
    return ASKED in known or asked_from is None or trial.number < asked_from


def _read_anew(study: optuna.Study) -> None:
    """Have samplers see the trials as they are now, as `Study.ask` does."""
    study._thread_local.cached_all_trials = None
