"""Further seeds for trials that were tried: which are still missing, and which comes next.

A study first tries its settings, each with the seed of the configuration. Then every trial is
repeated with the next seed, in the order of their numbers, then with the one after that. So a
study goes the same way with and without replicates, and more of them can be added later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .attributes import attributes_of
from .tally import SEED, Tally

if TYPE_CHECKING:
    import optuna

    from ..study.spec import StudySpec


class Replicate(NamedTuple):
    """A trial to repeat: its number, and every configuration key, the new seed among them."""

    original: int
    config: dict[str, Any]
    label: str | None


def missing(study: optuna.Study, spec: StudySpec, tally: Tally | None = None) -> int:
    """Count the trials that the study shall have and that do not exist in any state.

    Args:
        tally: of its trials as they are now; None: they are read.
    """
    tally = tally or Tally(study)
    new = max(0, spec.originals_total - len(tally.originals))
    more = spec.replicates - 1
    if not more:
        return new
    wanted = (len(tally.originals) + new) * more
    kept = (min(_different(tally, number), more) for number in tally.originals)
    return new + wanted - sum(kept)


def _different(tally: Tally, number: int) -> int:
    """With how many seeds a trial was repeated."""
    return sum(times > 0 for times in tally.seeds[number].values())


def next_replicate(spec: StudySpec, tally: Tally) -> Replicate | None:
    """Return what the next trial repeats; None if it tries a setting of its own.

    Args:
        tally: of the trials before it.
    """
    if len(tally.originals) < spec.originals_total:
        return None
    for step in range(1, spec.replicates):
        for number, first in sorted(tally.originals.items()):
            if first is not None and not tally.seeds[number][first + step]:
                original = tally.trial(number)
                known = attributes_of(original)
                config = {**known["config"], SEED: first + step}
                return Replicate(number, config, known.get("label"))
    return None
