"""What a study would do, before it does it: trials, parameters, steps, time and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import mean
from typing import TYPE_CHECKING, Any, TypedDict

from ..executors.resources import Resources, default_cohort, default_jobs, threads_for
from ..storage.home import Home
from ..study.spec import StudySpec
from .preflight import check_cohort, preflight

if TYPE_CHECKING:
    from minbert import Config, Measurement


class Sized(TypedDict):
    """Parameters of one configuration: a point, or the smallest or largest of the search."""

    what: str
    values: dict[str, Any]
    total: int
    trainable: int


class _Measured(TypedDict):
    """The part of a plan that is measured."""

    dev_examples: int | None
    seconds_per_step: float | None
    eval_seconds: float | None
    seconds_per_trial: float | None
    seconds: float | None
    memory_bytes: int | None
    checkpoint_bytes: int | None


_NOT_MEASURED: _Measured = {
    "dev_examples": None,
    "seconds_per_step": None,
    "eval_seconds": None,
    "seconds_per_trial": None,
    "seconds": None,
    "memory_bytes": None,
    "checkpoint_bytes": None,
}


class Plan(_Measured):
    """What a study would do. JSON values.

    Attributes:
        trials: in all; replicates: of these with each setting; points: settings that are tried
            first; searched: settings that the sampler proposes.
        parameters: of each point, and of the smallest and largest configuration of the search.
        steps_per_trial: fewest and most; steps: of all trials, an estimate if epochs are searched.
        evaluations: of all trials on the dev sets, which hold dev_examples.
        seconds_per_step, eval_seconds: of one step and one evaluation, measured; None if not.
        jobs: workers; cohort: trials at the same time in each.
        seconds_per_trial: estimate of the mean; seconds: of the whole study with these jobs, as if
            each worker trained one trial at a time: what a cohort saves is not measured.
        memory_bytes: of all workers, at most; checkpoint_bytes: of one trial's checkpoint.
        note: what is other than one may expect, see `StudySpec.notes`.
    """

    study: str
    profile: str | None
    sampler: str
    pruner: str
    trials: int
    replicates: int
    points: int
    searched: int
    jobs: int
    cohort: int
    threads: int
    parameters: list[Sized]
    steps_per_trial: list[int]
    steps: int
    evaluations: int
    note: str | None


def plan_study(
    spec: StudySpec,
    home: Home,
    *,
    jobs: int | None = None,
    cohort: int | None = 1,
    measure: bool = True,
) -> Plan:
    """Say what a study would do on this machine.

    Args:
        jobs: workers; None: as the machine allows.
        cohort: trials at the same time in each; None: as suits the machine.
        measure: take a few real steps of the smallest and the largest configuration for the
            estimates of time and memory; nothing of them is kept.

    Raises:
        InputError: data or weights cannot be used.
    """
    cohort = cohort or default_cohort()
    check_cohort(spec, cohort)
    preflight(spec, home)
    resources = Resources(jobs, spec.total, cohort=cohort)
    suited = default_jobs()
    listed = spec.listing[: spec.originals_total]
    points = [spec.config_of({**_first(spec), **point}) for point in listed]
    sized = _sizes(spec, home)
    ends = [spec.config_of(sized[name]["values"]) for name in ("smallest", "largest")]
    searched = spec.originals_total - len(points)
    steps = [_steps(config, home) for config in (*points, *(ends if searched else ()))]
    per_searched = mean(steps[len(points) :]) if searched else 0.0
    evaluations = [_evaluations(config) for config in points] + [
        mean(_evaluations(config) for config in ends)
    ] * searched
    plan: Plan = {
        "study": spec.name,
        "profile": spec.profile,
        "sampler": spec.sampler,
        "pruner": spec.pruner,
        "trials": spec.total,
        "replicates": spec.replicates,
        "points": len(points),
        "searched": searched,
        "jobs": resources.workers(suited),
        "cohort": resources.places(suited),
        "threads": threads_for(resources.workers(suited)),
        "parameters": list(sized.values()),
        "steps_per_trial": [min(steps), max(steps)],
        "steps": spec.replicates * round(sum(steps[: len(points)]) + searched * per_searched),
        "evaluations": spec.replicates * round(sum(evaluations)),
        **_NOT_MEASURED,
        "note": "; ".join(spec.notes) or None,
    }
    if measure:
        _estimate(plan, _measure(ends, home, plan["threads"]))
    return plan


def _sizes(spec: StudySpec, home: Home) -> dict[str, Sized]:
    """Count the parameters of every point and of the two ends of the search."""
    rows = {
        f"point {index}": {**_first(spec), **point}
        for index, point in enumerate(spec.points, start=1)
    }
    ends = sorted(_ends(spec), key=lambda values: _counts(spec, values, home).trainable)
    rows["smallest"], rows["largest"] = ends[0], ends[-1]
    return {what: _sized(what, spec, values, home) for what, values in rows.items()}


def _sized(what: str, spec: StudySpec, values: dict[str, Any], home: Home) -> Sized:
    counts = _counts(spec, values, home)
    return {"what": what, "values": values, "total": counts.total, "trainable": counts.trainable}


def _counts(spec: StudySpec, values: Mapping[str, Any], home: Home) -> Any:
    import minbert

    return minbert.count_parameters(spec.config_of(values), home.cache)


def _first(spec: StudySpec) -> dict[str, Any]:
    return {key: search.corners()[0] for key, search in spec.search.items()}


def _ends(spec: StudySpec) -> Iterable[dict[str, Any]]:
    """Configurations among which the smallest and the largest are: each key at each of its ends,
    the others at both of theirs. Without a search, the points; without points, the file's own."""
    if not spec.search:
        return [dict(point) for point in spec.points] or [{}]
    low = _first(spec)
    high = {key: search.corners()[-1] for key, search in spec.search.items()}
    return [
        {**base, key: value}
        for base in (low, high)
        for key, search in spec.search.items()
        for value in search.corners()
    ]


def _steps(config: Config, home: Home) -> int:
    import minbert

    return minbert.total_steps(config, home.cache)


def _evaluations(config: Config) -> int:
    return math.ceil(config.train.epochs / config.train.eval_every)


def _measure(configs: list[Config], home: Home, threads: int) -> list[Measurement]:
    """Measure each different configuration with the threads that its worker would have."""
    import torch

    import minbert

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [minbert.measure(config, home.cache) for config in dict.fromkeys(configs)]
    finally:
        torch.set_num_threads(before)


def _estimate(plan: Plan, measured: list[Measurement]) -> None:
    """Put time and memory into a plan: the mean of the measured configurations."""
    step = mean(m.seconds_per_step for m in measured)
    examples = measured[0].dev_examples
    evaluation = mean(m.dev_examples / m.eval_examples_per_second for m in measured)
    work = plan["steps"] * step + plan["evaluations"] * evaluation
    plan["seconds_per_step"], plan["eval_seconds"] = step, evaluation
    plan["dev_examples"] = examples
    each = work / plan["trials"]
    plan["seconds_per_trial"] = each
    plan["seconds"] = each * math.ceil(plan["trials"] / plan["jobs"])
    at_a_time = plan["jobs"] * plan["cohort"]
    plan["memory_bytes"] = at_a_time * max(m.peak_bytes for m in measured)
    plan["checkpoint_bytes"] = max(m.checkpoint_bytes for m in measured)
