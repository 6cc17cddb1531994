"""A study as a value: what it trains, what it searches, and what makes two studies the same."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from minbert import KEYS, Config, describe_keys

from .search import Choice, covering

Sampler = Literal["tpe", "random", "grid", "gp", "cmaes", "points"]
Pruner = Literal["none", "median", "hyperband", "successive_halving"]


class StudySpec(BaseModel):
    """One study, whole and checked: the same values mean the same trials.

    Attributes:
        name: the study's name, from the file's.
        source: the file, as text.
        profile: the profile that was applied, None without one.
        sampler: who proposes the trials after the points.
        pruner: who ends trials early.
        trials: how many trials the study shall have in all.
        seed: of the sampler.
        config: configuration keys that are the same in every trial.
        search: configuration keys that are searched.
        points: trials that come first, in this order; each sets any configuration keys.
        labels: names of points, by `point_key`.
        replicates: seeds with which every trial is trained.
        limits: what a trial may take, see `mtl.study.limits`.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    source: str
    profile: str | None
    description: str
    sampler: Sampler
    pruner: Pruner
    trials: int
    seed: int
    config: dict[str, Any]
    search: dict[str, Any]
    points: list[dict[str, Any]]
    labels: dict[str, str] = {}
    replicates: int = 1
    limits: dict[str, float] = {}

    @cached_property
    def listing(self) -> list[dict[str, Any]]:
        """The trials that are known beforehand: the points, then the grid if it is one, or the one
        cell of a search that leaves nothing open."""
        if self.sampler != "grid":
            if self.sampler == "points" or self.open_ended or not self.search:
                return self.points
            cell = {key: search.corners()[0] for key, search in self.search.items()}
            known = any({**cell, **point} == cell for point in self.points)
            return self.points if known else [*self.points, cell]
        axes = [self.search[key].grid() for key in self.search]
        cells = (dict(zip(self.search, values, strict=True)) for values in itertools.product(*axes))
        return self.points + [cell for cell in cells if cell not in self.points]

    @cached_property
    def keyed_listing(self) -> dict[str, dict[str, Any]]:
        """The same, by `point_key`."""
        return {point_key(point): point for point in self.listing}

    @property
    def total(self) -> int:
        """How many trials the study ends with, replicates included."""
        return self.originals_total * self.replicates

    @property
    def originals_total(self) -> int:
        """How many settings are tried, replicates aside: `trials`, or fewer if no more are left."""
        return self.trials if self.open_ended else min(self.trials, max(1, len(self.listing)))

    @property
    def open_ended(self) -> bool:
        """Whether there is always another setting to try."""
        listed = self.sampler in ("points", "grid")
        return not listed and not all(search.single for search in self.search.values())

    @property
    def untried(self) -> int:
        """How many of the settings that are known beforehand `trials` leaves out."""
        return 0 if self.open_ended else max(1, len(self.listing)) - self.originals_total

    @property
    def replicable(self) -> bool:
        """Whether the seed is the replicates': neither searched nor set by a point."""
        return not any("train.seed" in keys for keys in (self.search, *self.points))

    @cached_property
    def point_keys(self) -> dict[str, Any]:
        """The keys that points alone vary, and what in Optuna can hold their values.

        That is a `mtl.study.search.Search`, or None for free text and lists.
        """
        keys = {key for point in self.points for key in point if key not in self.search}
        base = {**Config().to_keys(), **self.config}
        tried = [*self.points, {}] if self.open_ended else self.points
        found = {}
        for info in (info for info in describe_keys() if info.key in keys):
            values = [point.get(info.key, base[info.key]) for point in tried]
            if any(value != values[0] for value in values):
                found[info.key] = covering(info, values)
        return found

    @property
    def distinguishing_keys(self) -> list[str]:
        """The keys that tell trials apart: what is searched or set by a point."""
        named = {*self.search, *(key for point in self.points for key in point)}
        return [key for key in KEYS if key in named]

    @property
    def cap_note(self) -> str | None:
        """Say why there are fewer trials than asked for; None if there are not."""
        if self.originals_total == self.trials:
            return None
        what = "the grid and the points hold" if self.sampler == "grid" else "the points are"
        if not self.search and not self.points:
            what = "nothing is searched, so there is"
        elif self.sampler not in ("points", "grid") and self.search:
            what = "each searched key has one value, so there is no more than"
        return f"{self.originals_total} of {self.trials} trials: {what} {self.originals_total}"

    @property
    def notes(self) -> list[str]:
        """What a study does that one may not expect, a line each."""
        said = [*([self.cap_note] if self.cap_note else []), *self._idle_notes()]
        return said + ([self.random_note] if self.random_note else [])

    @property
    def random_note(self) -> str | None:
        """Name what a sampler that knows no categories draws at random; None if that is nothing."""
        searched = {key: search for key, search in self.search.items() if not search.single}
        listed = [key for key, search in searched.items() if isinstance(search, Choice)]
        if self.sampler != "cmaes" or not listed or self.originals_total <= len(self.points):
            return None
        which = ", ".join(listed) if len(listed) < len(searched) else "every searched key"
        return (
            f"cmaes draws {which} at random: it searches ranges, not lists of values; "
            "write ranges, or use tpe or gp"
        )

    def _idle_notes(self) -> Iterator[str]:
        """Name the searched keys that change nothing in any trial."""
        for begin, switches in _SWITCHES.items():
            idle = [k for k in self.search if k.startswith(begin) and k not in switches]
            if idle and all({*self.values_of(key)} == {off} for key, off in switches.items()):
                why = " and ".join(f"{key} is {off}" for key, off in switches.items())
                yield f"{', '.join(idle)}: searched without effect, since {why} in every trial"

    def values_of(self, key: str) -> list[Any]:
        """What a key can be in a trial, with ranges by their ends."""
        search = self.search.get(key)
        fixed = self.settings["config"].get(key)
        values = search.corners() if search else [fixed]
        return values + [point[key] for point in self.points if key in point]

    def config_of(self, values: Mapping[str, Any]) -> Config:
        """Make the configuration of a trial with these values."""
        return Config.from_keys({**self.config, **values})

    @property
    def settings(self) -> dict[str, Any]:
        """What makes two studies the same: every fixed key, and the search. JSON values."""
        fixed = Config.from_keys(self.config).to_keys()
        return {
            "config": {key: value for key, value in fixed.items() if key not in self.search},
            "search": {key: search.describe() for key, search in sorted(self.search.items())},
        }

    @property
    def identity(self) -> str:
        """A digest of the settings that a new configuration key with its default leaves alone."""
        defaults = Config().to_keys()
        fixed = self.settings["config"]
        changed = {key: value for key, value in fixed.items() if value != defaults[key]}
        return digest({"config": changed, "search": self.settings["search"]})


# Keys that begin so have no effect where all of these have these values.
_SWITCHES: dict[str, dict[str, object]] = {
    "lora.alpha": {"lora.rank": 0},
    "pals.": {"pals.kind": "none"},
    "smart.": {"smart.lambda": 0.0, "smart.proximal": 0.0},
}


def point_key(point: Mapping[str, Any]) -> str:
    """Return a point as text: two points that set the same have the same."""
    return json.dumps(point, sort_keys=True)


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Name the keys in which two settings differ. A key that one does not know has its default."""
    defaults = Config().to_keys()
    old_all, new_all = (
        {**defaults, **each["config"], **{key: _range(r) for key, r in each["search"].items()}}
        for each in (old, new)
    )
    return sorted(
        key
        for key in old_all.keys() | new_all.keys()
        if old_all.get(key) != new_all.get(key) or (key in old["search"]) != (key in new["search"])
    )


def _range(described: Any) -> Any:
    """Return a range as text: one of whole numbers is another than one of numbers. What was
    recorded without its low begins at 0."""
    if not isinstance(described, Mapping):
        return described
    zero = type(described["high"])(0)
    return json.dumps({"low": zero, **described}, sort_keys=True)
