"""What has been tried in a study, counted as it grows: no trial is looked at again once it ended.

After every trial it is asked what comes next. To read all trials again each time would make the
thousandth trial cost a thousand times what the first one does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from ..common.process import reading_many
from ..study.inputs import INPUTS, Digests
from .attributes import attributes_of
from .origin import ASKED_FROM, QUEUED, is_ours
from .states import RUNNING, TO_OPTUNA, WAITING

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

REPLICATE = "replicate_of"
"""User attribute of a trial that repeats another: that one's number."""
SEED = "train.seed"


class _Known(NamedTuple):
    """Of one trial: which point it took, the number of the one that it repeats, its seed."""

    point: str | None
    original: int | None
    seed: int | None


class Tally:
    """The trials of a study so far.

    What a person has queued, told or added with Optuna's own interface takes no point, is repeated
    with no other seed, and is none of the trials that the study shall have.

    Args:
        before: only trials with a smaller number count; None: all.

    Attributes:
        count: trials in any state, of whatever origin.
        running: numbers of those that were asked for and have not ended.
        waiting: numbers of those that are queued.
        ended: how many have ended.
        originals: the seeds, by number, of those that repeat no other; None while a trial has no
            values.
        points: how many trials have taken a point, by `mtl.study.spec.point_key`.
        drawn: which keys all of them have drawn, from where.
        inputs: digests of data and backbones, as the study was opened with them.
        seeds: those with which each trial, by number, was repeated, and how often.
    """

    def __init__(self, study: optuna.Study, before: int | None = None) -> None:
        from optuna.search_space import IntersectionSearchSpace

        self._study, self._before = study, before
        self.drawn = IntersectionSearchSpace(include_pruned=True)
        self._trials: list[FrozenTrial] = []
        known = study.user_attrs
        self.inputs: Digests = known.get(INPUTS) or {}
        asked_from = known.get(ASKED_FROM)
        self._asked_from = asked_from if isinstance(asked_from, int) else None
        self._known: dict[int, _Known] = {}
        self._unended: list[int] = []
        self.count = self.ended = 0
        self.running: list[int] = []
        self.waiting: list[int] = []
        self.originals: dict[int, int | None] = {}
        self.points: Counter[str] = Counter()
        self.seeds: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self.update()

    def update(self) -> None:
        """Take note of what has changed."""
        with reading_many():
            trials = self._study.get_trials(deepcopy=False)[: self._before]
        changing = [*self._unended, *range(self.count, len(trials))]
        self._trials, self.count = trials, len(trials)
        for number in changing:
            self._look_at(trials[number])
        states = {number: trials[number].state for number in changing}
        self._unended = [number for number, state in states.items() if not state.is_finished()]
        self.running = [n for n in self._unended if self._is_running(trials[n])]
        self.waiting = [n for n in self._unended if states[n].name == TO_OPTUNA[WAITING]]
        self.ended = self.count - len(self._unended)

    def trial(self, number: int) -> FrozenTrial:
        """Return a trial as it was at the last `update`."""
        return self._trials[number]

    def _is_running(self, trial: FrozenTrial) -> bool:
        if trial.state.name != TO_OPTUNA[RUNNING]:
            return False
        return is_ours(trial, attributes_of(trial), self._asked_from)

    def _look_at(self, trial: FrozenTrial) -> None:
        if trial.number in self._known:
            self._count(self._known.pop(trial.number), -1)
        self.originals.pop(trial.number, None)
        given = attributes_of(trial)
        if QUEUED in given or not is_ours(trial, given, self._asked_from):
            return
        seed = given.get("config", {}).get(SEED)
        known = self._known[trial.number] = _Known(given.get("point"), given.get(REPLICATE), seed)
        self._count(known, 1)
        if known.original is None:
            self.originals[trial.number] = seed

    def _count(self, known: _Known, by: int) -> None:
        if known.point is not None:
            self.points[known.point] += by
        if known.original is not None and known.seed is not None:
            self.seeds[known.original][known.seed] += by
