"""The tables of a study file: their shape, their errors, and laying a profile over the file."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from minbert import InputError
from minbert.common.messages import short, wish
from minbert.config import KEYS, canonical, check_key

from .file import flatten, nearest
from .limits import check_limits
from .search import Search, parse_search
from .spec import Pruner, Sampler

DEFAULT_PROFILE = "demo"
LABEL = "label"  # of a point: not a configuration key


class FileError(Exception):
    """An input error at a key of a section of the file.

    Attributes:
        merged: it was found after the profile was laid over the file; the key may stand in both.
    """

    def __init__(
        self, message: str, section: str = "", key: str = "", *, merged: bool = False
    ) -> None:
        super().__init__(message)
        self.section, self.key, self.merged = section, key, merged


class Table(BaseModel):
    """What the top of a study file and each of its profiles may say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    description: str | None = None
    sampler: Sampler | None = None
    pruner: Pruner | None = None
    trials: int | None = Field(None, ge=1, le=1_000_000)
    seed: int | None = Field(None, ge=0, lt=2**32)
    replicates: int | None = Field(None, ge=1, le=1000)
    config: dict[str, Any] = {}
    search: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    points: list[dict[str, Any]] | None = None


class File(Table):
    """A study file, whole."""

    profiles: dict[str, dict[str, Any]] = {}


def choose_profile(profiles: Mapping[str, Any], profile: str | None) -> str | None:
    """Return the profile to apply: the one asked for, else `demo` where there is one.

    Raises:
        FileError: there is no such profile.
    """
    if profile is None:
        return DEFAULT_PROFILE if DEFAULT_PROFILE in profiles else None
    if profile not in profiles:
        raise FileError(
            f"unknown profile {profile!r}; {nearest(profile, profiles)}", "", "profiles"
        )
    return profile


def profile_table(table: dict[str, Any], section: str) -> dict[str, Any]:
    """Move the configuration keys that stand in a profile directly into its config."""
    known = {key: value for key, value in table.items() if key in Table.model_fields}
    direct = _once(
        flatten({key: value for key, value in table.items() if key not in known}), section
    )
    for key in direct:
        if key not in KEYS and "." not in key:
            choices = [*Table.model_fields, *KEYS]
            hint = _did_you_mean(key, choices)
            raise FileError(f"unknown key {short(key)}; {hint}", section, key)
    config = known.get("config", {})
    if direct and isinstance(config, dict):
        known["config"] = _once(itertools.chain(flatten(config), direct.items()), section)
    return known


def parse_table(model: type[Table], raw: dict, section: str) -> Any:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
    loc = ".".join(str(part) for part in first["loc"])
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        raise FileError(
            f"unknown key {short(key)}; {_did_you_mean(key, model.model_fields)}", section, key
        )
    if first["type"] == "literal_error":
        options = get_args(Sampler if key == "sampler" else Pruner)
        raise FileError(
            f"{key} = {short(first['input'])} is unknown; {nearest(str(first['input']), options)}",
            section,
            key,
        )
    wanted = wish(first["msg"]).replace("dictionary", "table")
    raise FileError(f"{loc}: {short(first['input'])} does not fit; it {wanted}", section, key)


def _once(pairs: Iterable[tuple[str, Any]], section: str) -> dict[str, Any]:
    """Return keys with their values.

    Raises:
        FileError: a key is given twice, in two of the ways in which TOML can write it.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise FileError(f"{key} is given twice; leave one of them out", section, key)
        found[key] = value
    return found


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    return nearest(key, sorted(known))


def merge(tables: list[tuple[Table, str]]) -> tuple[dict, dict, list[dict]]:
    """Lay the profile over the file: keys replace keys, a profile's points replace the points."""
    config: dict[str, Any] = {}
    search: dict[str, Search] = {}
    points: list[dict[str, Any]] = []
    for table, section in tables:
        fixed = _once(flatten(table.config), join(section, "config"))
        searched = _once(flatten(table.search), join(section, "search"))
        for where, keys in (("config", fixed), ("search", searched)):
            for key in keys:
                check_at(join(section, where), key, check_key, key)
        for key in fixed.keys() & searched.keys():
            raise FileError(
                f"{key} is both fixed in config and searched; leave one of them out",
                join(section, "search"),
                key,
            )
        for key, value in fixed.items():
            search.pop(key, None)
            config[key] = value
        for key, value in searched.items():
            config.pop(key, None)
            search[key] = check_at(join(section, "search"), key, parse_search, key, value)
        if table.points is not None:
            where = join(section, "points")
            points = [_once(flatten(point), where) for point in table.points]
            check_at(where, LABEL, _check_labels, points)
            points = [_canonical_point(point, where) for point in points]
    return config, search, points


def _canonical_point(point: dict[str, Any], section: str) -> dict[str, Any]:
    kept = {}
    for key, value in point.items():
        if key == LABEL:
            kept[key] = value
            continue
        same = check_at(section, key, canonical, key, value)
        # 8 for 8.0 stays: what is recorded names a point by what was written.
        kept[key] = value if same == value else same
    return kept


def _check_labels(points: list[dict[str, Any]]) -> None:
    for point in points:
        label = point.get(LABEL, "-")
        if not isinstance(label, str) or not label.strip() or not label.isprintable():
            raise InputError(f"label = {short(label)} does not fit; it should be a line of text")


def merge_limits(tables: list[tuple[Table, str]]) -> dict[str, float]:
    """Lay the profile's limits over the file's."""
    limits: dict[str, float] = {}
    for table, section in tables:
        for name, value in table.limits.items():
            check_at(join(section, "limits"), name, check_limits, {name: value})
        limits |= table.limits
    return limits


def join(section: str, part: str) -> str:
    return f"{section}.{part}" if section else part


def check_at(section: str, key: str, function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except InputError as error:
        raise FileError(str(error), section, key) from None
