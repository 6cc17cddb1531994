"""What a trial is given that a person has queued: what he says, and the rest by the sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minbert import InputError
from minbert.config import canonical

from ..study.inputs import INPUT_KEYS
from ..study.search import Choice
from .origin import queued_params

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ..study.spec import StudySpec


class ImpossibleError(InputError):
    """What a person has queued is no configuration of the study.

    Attributes:
        number: the trial's.
    """

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"what was queued cannot be trained: {reason}")
        self.number = number


def queued_values(spec: StudySpec, trial: FrozenTrial) -> dict[str, Any]:
    """Return the configuration values that a person has queued. Like a point of the study file,
    they may set keys that are not searched, and lie outside of the search.

    Raises:
        ImpossibleError: an unknown key, a value that does not fit it, or data or a backbone that
            the study does not name.
    """
    try:
        return {key: _value(spec, key, raw) for key, raw in queued_params(trial).items()}
    except InputError as error:
        raise ImpossibleError(trial.number, str(error)) from None


def _value(spec: StudySpec, key: str, raw: Any) -> Any:
    search = spec.search.get(key)
    if isinstance(search, Choice) and raw in search.labels:
        return search.decode(raw)
    value = canonical(key, raw)
    if key in INPUT_KEYS and value not in spec.values_of(key):
        raise InputError(f"{key} = {value} is none of the study's; name it in a point of its file")
    return value


def beyond(spec: StudySpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was queued that no parameter of the study holds, for people to see."""
    return {
        key: value
        for key, value in values.items()
        if key not in spec.search and key not in spec.point_keys
    }
