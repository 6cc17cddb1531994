"""Which values the next trial has: the points of the study file first, then Optuna's sampler.

A trial's values depend on nothing but the study's seed, the trial's number, and the trials that
have ended before: the sampler is made anew for each trial, and draws all of its values at once. So
a dispatcher that was killed in the middle of asking asks again and gets the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from minbert import Config, InputError

from ..study.inputs import INPUTS, as_now
from ..study.spec import StudySpec
from .attributes import attributes_of, set_attribute, trial_of
from .origin import QUEUED, new_trial, take_queued
from .queued import ImpossibleError, beyond, queued_values
from .replicates import next_replicate
from .tally import REPLICATE, Tally

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.search_space import IntersectionSearchSpace
    from optuna.trial import FrozenTrial, Trial, TrialState


class PointsFirst(BaseSampler):
    """Gives a trial the values of a point, and draws what the point leaves open.

    Points are not put into the study by `enqueue_trial`: its `skip_if_exists` looks and writes
    in two steps, so a dispatcher killed between them, or started twice, enqueues a point twice.

    Args:
        inner: draws the values.
        space: every searched key with its distribution, in the order of the study file.
        point: values of this trial that are given.
        drawn: what every trial before has drawn: TPE would compare all of them each time anew.
    """

    def __init__(
        self,
        inner: BaseSampler,
        space: Mapping[str, BaseDistribution],
        point: Mapping[str, Any],
        drawn: IntersectionSearchSpace,
    ) -> None:
        self._inner, self._space, self._point = inner, dict(space), dict(point)
        self._drawn = drawn

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        # Every key is "relative": Optuna then asks once for all of them. Asked for one by one, a
        # sampler's random stream would depend on how many of them were already written down.
        return self._space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self._point.keys() >= self._space.keys():
            return self._point
        compared = self._compared(study)
        relative = self._relative(compared, trial)
        drawn = self._inner.sample_relative(compared, trial, relative)
        for name, distribution in self._space.items():
            if name not in drawn and not distribution.single():
                drawn[name] = self._inner.sample_independent(study, trial, name, distribution)
        return {**drawn, **self._point}

    def _compared(self, study: optuna.Study) -> optuna.Study:
        """What the sampler learns from: CMA-ES and GP search no key that a single trial lacks, and
        a point, or a trial that a person has queued or added, may lie outside of the search."""
        if isinstance(self._inner, optuna.samplers.CmaEsSampler | optuna.samplers.GPSampler):
            return _Within(study, self._space)
        return study

    def _relative(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if isinstance(self._inner, optuna.samplers.TPESampler):
            drawn = self._drawn.calculate(study, use_cache=True)
            drawn = {name: given for name, given in drawn.items() if not given.single()}
        else:
            drawn = self._inner.infer_relative_search_space(study, trial)
        # What points alone vary is a parameter, too, and nobody's to draw.
        return {name: given for name, given in drawn.items() if name in self._space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._inner.before_trial(study, trial)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._inner.after_trial(study, trial, state, values)


class _Within(optuna.Study):
    """A study as if it had only the trials whose every searched key is within its search."""

    def __init__(self, study: optuna.Study, space: Mapping[str, BaseDistribution]) -> None:
        self.__dict__.update(study.__dict__)
        self._space = space.items()

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        found = super()._get_trials(*args, **kwargs)
        return [trial for trial in found if trial.distributions.items() >= self._space]


def ask(study: optuna.Study, spec: StudySpec, tally: Tally | None = None) -> tuple[Trial, Config]:
    """Create the next trial and give it its values. What is queued stays in the queue.

    Args:
        tally: of the trials as they are now; None: they are read.
    """
    given = _given(spec, tally or Tally(study))
    study.sampler = given.sampler
    return _give_values(optuna.trial.Trial(study, new_trial(study)), spec, given)


def ask_queued(study: optuna.Study, spec: StudySpec, tally: Tally) -> tuple[Trial, Config] | None:
    """Take the first trial that a person has queued, and give it its values; None if there is
    none any more.

    Raises:
        ImpossibleError: they are no configuration of the study. The trial is running.
    """
    for number in tally.waiting:
        if (trial_id := take_queued(study, number)) is not None:
            return _give_queued(study, spec, trial_id, tally)
    return None


def resume(study: optuna.Study, spec: StudySpec, number: int) -> tuple[Trial, Config]:
    """Take up a trial that was left RUNNING: with the values it has, or the ones it would have."""
    frozen = trial_of(study, number)
    if "config" in attributes_of(frozen):
        trial = optuna.trial.Trial(study, frozen._trial_id)
        inputs = study.user_attrs.get(INPUTS) or {}
        return trial, Config.from_keys(as_now(attributes_of(frozen)["config"], spec, inputs))
    tally = Tally(study, before=number)
    if QUEUED in attributes_of(frozen):
        return _give_queued(study, spec, frozen._trial_id, tally)
    given = _given(spec, tally)
    study.sampler = given.sampler
    return _give_values(optuna.trial.Trial(study, frozen._trial_id), spec, given)


def _give_queued(
    study: optuna.Study, spec: StudySpec, trial_id: int, tally: Tally
) -> tuple[Trial, Config]:
    frozen = study._storage.get_trial(trial_id)
    values = queued_values(spec, frozen)
    given = _Given(values, beyond(spec, values), _sampler(spec, tally, values, frozen.number))
    study.sampler = given.sampler
    trial = optuna.trial.Trial(study, trial_id)
    trial._fixed_params = {}  # as Optuna reads them, they are no configuration values
    try:
        return _give_values(trial, spec, given)
    except (InputError, ValueError) as error:  # Optuna's: it was added with another range
        raise ImpossibleError(frozen.number, str(error)) from None


class _Given(NamedTuple):
    """What is known of a trial before the sampler is asked: values, and attributes to keep."""

    values: dict[str, Any]
    attributes: dict[str, Any]
    sampler: BaseSampler


def _given(spec: StudySpec, tally: Tally) -> _Given:
    """Say what is known of the trial that follows those of the tally."""
    replicate = next_replicate(spec, tally)
    if replicate is not None:
        values, label = as_now(replicate.config, spec, tally.inputs), replicate.label
        attributes: dict[str, Any] = {REPLICATE: replicate.original}
    elif (key := _next_point(spec, tally)) is not None:
        values, label = spec.keyed_listing[key], spec.labels.get(key)
        attributes = {"point": key}
    else:
        values, label, attributes = {}, None, {}
    if label is not None:
        attributes["label"] = label
    return _Given(values, attributes, _sampler(spec, tally, values, tally.count))


def _give_values(trial: Trial, spec: StudySpec, given: _Given) -> tuple[Trial, Config]:
    """Write a trial's values down: parameters, where they are from, the whole configuration."""
    values = dict(given.values)
    attributes = dict(given.attributes)
    for key, search in spec.search.items():
        if key in values and not search.contains(values[key]):
            attributes[key] = values[key]
        else:
            values[key] = search.suggest(trial, key)
    config = spec.config_of(values)
    keys = config.to_keys()
    attributes |= _show_point_keys(trial, spec, keys)
    for name, value in {**attributes, "config": keys}.items():
        set_attribute(trial.study, trial._trial_id, name, value)
    return trial, config


def _show_point_keys(trial: Trial, spec: StudySpec, config: Mapping[str, Any]) -> dict[str, Any]:
    """Make parameters of what points alone vary, too: people compare trials by them.

    Returns:
        The values that no parameter can hold: text and lists.
    """
    shown = {}
    for key, search in spec.point_keys.items():
        value = config[key]
        if search is None or not search.contains(value):
            shown[key] = value
            continue
        kind = search.distribution()
        inside = kind.to_internal_repr(search.encode(value))
        trial.study._storage.set_trial_param(trial._trial_id, key, inside, kind)
    return shown


def _next_point(spec: StudySpec, tally: Tally) -> str | None:
    """The first point, as text, that no trial before has taken; None after the last.

    By what was taken rather than by number: points may be added to a study that has begun.
    """
    return next((key for key in spec.keyed_listing if not tally.points[key]), None)


def _sampler(spec: StudySpec, tally: Tally, values: Mapping[str, Any], number: int) -> BaseSampler:
    space = {key: search.distribution() for key, search in spec.search.items()}
    given = {
        key: search.encode(values[key])
        for key, search in spec.search.items()
        if key in values and search.contains(values[key])
    }
    inner = make_sampler(spec.sampler, _seed(spec.seed, number))
    return PointsFirst(inner, space, given, tally.drawn)


def _seed(seed: int, number: int) -> int:
    """A seed for one trial; streams of neighbouring trials are independent."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def make_sampler(name: str, seed: int) -> BaseSampler:
    """Make one of Optuna's samplers. `grid` and `points` list their trials (see
    `StudySpec.listing`); beyond the list they would draw at random.

    Raises:
        InputError: the sampler needs a package that is not installed.
    """
    from optuna import samplers

    if name == "tpe":
        # Running trials count as bad ones (constant liar): parallel trials spread out.
        return samplers.TPESampler(seed=seed)
    if name == "gp":
        _need("gp", "torch", "scipy")
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    if name == "cmaes":
        _need("cmaes", "cmaes")
        from .cmaes import ReplayedCmaEs

        return ReplayedCmaEs(seed=seed, warn_independent_sampling=False)
    return samplers.RandomSampler(seed=seed)


def _need(sampler: str, *packages: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(
            f"sampler {sampler!r} needs a package that is not installed: "
            f"pip install {' '.join(missing)}"
        )
