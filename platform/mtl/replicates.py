"""Further seeds for trials that were tried: which are still missing, and which comes next.

A study first tries its settings, each with the seed of the configuration. Then every trial is
repeated with the next seed, in the order of their numbers, then with the one after that. So a
study goes the same way with and without replicates, and more of them can be added later.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .facts import facts

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from .studyspec import StudySpec

REPLICATE = "replicate_of"
"""User attribute of a trial that repeats another: that one's number."""
_SEED = "train.seed"


class Replicate(NamedTuple):
    """A trial to repeat: its number, and every configuration key, the new seed among them."""

    original: int
    config: dict[str, Any]
    label: str | None


def missing(study: optuna.Study, spec: StudySpec) -> int:
    """Count the trials that the study shall have and that do not exist in any state."""
    trials = _existing(study)
    originals = [t for t in trials if REPLICATE not in t.user_attrs]
    new = max(0, spec.settings_total - len(originals))
    wanted = (len(originals) + new) * (spec.replicates - 1)
    seeds = _seeds(trials)
    kept = sum(min(len(seeds[t.number]), spec.replicates - 1) for t in originals)
    return new + wanted - kept


def next_replicate(study: optuna.Study, spec: StudySpec, number: int) -> Replicate | None:
    """Return what trial `number` repeats; None if it tries a setting of its own."""
    before = [t for t in _existing(study) if t.number < number]
    originals = [t for t in before if REPLICATE not in t.user_attrs]
    if len(originals) < spec.settings_total:
        return None
    taken = _seeds(before)
    for step in range(1, spec.replicates):
        for original in originals:
            config = facts(original)["config"]
            seed = config[_SEED] + step
            if seed not in taken[original.number]:
                label = original.user_attrs.get("label")
                return Replicate(original.number, {**config, _SEED: seed}, label)
    return None


def _seeds(trials: list[FrozenTrial]) -> dict[int, set[int]]:
    """The seeds with which each trial, by number, was repeated."""
    seeds: dict[int, set[int]] = defaultdict(set)
    for trial in trials:
        known = facts(trial)
        if REPLICATE in known and "config" in known:
            seeds[known[REPLICATE]].add(known["config"][_SEED])
    return seeds


def _existing(study: optuna.Study) -> list[FrozenTrial]:
    """All trials but those that a person has queued."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.name != "WAITING"]
