"""What is known of a trial beside its values: long things apart from those that people compare.

The dashboard shows every user attribute of a trial, in columns. Whole configurations and tables of
intervals would push the rest off the screen; they are kept as system attributes, which it hides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

HIDDEN = frozenset({"config", "estimates", "point", "scores"})
_PREFIX = "mtl:"


def set_fact(study: optuna.Study, trial_id: int, name: str, value: Any) -> None:
    """Write something down at a trial, as a user attribute or hidden. JSON values."""
    storage = study._storage
    if name in HIDDEN:
        storage.set_trial_system_attr(trial_id, f"{_PREFIX}{name}", value)
    else:
        storage.set_trial_user_attr(trial_id, name, value)


def facts(trial: FrozenTrial) -> dict[str, Any]:
    """Return everything that was written down at a trial."""
    hidden = {
        name.removeprefix(_PREFIX): value
        for name, value in trial.system_attrs.items()
        if name.startswith(_PREFIX)
    }
    return {**trial.user_attrs, **hidden}
