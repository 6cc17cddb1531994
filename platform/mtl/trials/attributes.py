"""What is kept of a trial beside its values: long things apart from those that people compare.

The dashboard shows every user attribute of a trial, in columns. Whole configurations and tables of
intervals would push the rest off the screen; they are kept as system attributes, which it hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

HIDDEN = frozenset(
    {"apart", "asked", "config", "estimates", "lost_at", "point", "queued", "scores", "setting"}
)
_NUMBER = (int, float)
# What else there is under these names was written by somebody else, with Optuna's own interface.
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("config", "estimates", "scores"), dict),
    **dict.fromkeys(("label", "mlflow_run_id", "point", "reason", "setting"), str),
    **dict.fromkeys(("best_epoch", "lost_at", "pruned_at", "replicate_of", "retries"), int),
    **dict.fromkeys(("apart", "checkpoint_bytes", "model_bytes", "trainable_parameters"), int),
    "minutes": _NUMBER,
}
_PREFIX = "mtl:"
_RENEWED = "runs_renewed"  # an attribute of the study: some of its trials have late runs though
# they had others before
_LATE = "mtl:run:"  # an attribute of the study: the run of a trial that had ended by then


def set_attribute(study: optuna.Study, trial_id: int, name: str, value: Any) -> None:
    """Write something down at a trial, as a user attribute or hidden. JSON values."""
    storage = study._storage
    if name in HIDDEN:
        storage.set_trial_system_attr(trial_id, f"{_PREFIX}{name}", value)
    else:
        storage.set_trial_user_attr(trial_id, name, value)


def attributes_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return everything that was written down at a trial, but what bears the name of an attribute
    of ours and is none."""
    hidden = {
        name.removeprefix(_PREFIX): value
        for name, value in trial.system_attrs.items()
        if name.startswith(_PREFIX)
    }
    known = {**trial.user_attrs, **hidden}
    return {name: value for name, value in known.items() if _fits(name, value)}


def _fits(name: str, value: Any) -> bool:
    kind = _KINDS.get(name)
    return kind is None or (isinstance(value, kind) and not isinstance(value, bool))


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """Return one trial as it is recorded now, without reading all the others."""
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    return storage.get_trial(trial_id)


def late_runs(study: optuna.Study, trials: Iterable[FrozenTrial] | None = None) -> dict[int, str]:
    """Return the runs, by number, of trials that had ended before MLflow created them: for the
    first time, or anew.

    Args:
        trials: those that are asked for. Thousands of notes lie where late runs do: they are not
            read where none of these can have one. None: all.
    """
    told = trials is not None and all(run_of(trial, {}) is not None for trial in trials)
    if told and _RENEWED not in study.user_attrs:
        return {}
    attributes = study._storage.get_study_system_attrs(study._study_id)
    found = {key.removeprefix(_LATE): run for key, run in attributes.items() if _LATE in key}
    return {int(number): run for number, run in found.items()}


def run_of(trial: FrozenTrial, late: Mapping[int, str]) -> str | None:
    """Return the id of a trial's run in MLflow; None while MLflow has not created it.

    Args:
        late: see `late_runs`.
    """
    return late.get(trial.number) or attributes_of(trial).get("mlflow_run_id")


def set_run(study: optuna.Study, trial: FrozenTrial, run_id: str) -> None:
    """Write down which run a trial has: at the study, if the trial has ended, as Optuna lets
    nothing be written to it then."""
    storage = study._storage
    if trial.state.is_finished():
        if "mlflow_run_id" in trial.user_attrs and _RENEWED not in study.user_attrs:
            study.set_user_attr(_RENEWED, True)
        storage.set_study_system_attr(study._study_id, f"{_LATE}{trial.number}", run_id)
    else:
        storage.set_trial_user_attr(trial._trial_id, "mlflow_run_id", run_id)
