"""From a study file to a checked StudySpec: what is trained, what is searched, by which means.

Everything that can be known before a training starts is checked here, once: unknown keys, wrong
types, points and corners of the search that are no valid configuration.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minbert import InputError

from .file import find_line, find_study_file, read_toml, shipped_folder
from .names import check_name
from .spec import StudySpec, point_key
from .tables import (
    DEFAULT_PROFILE,
    LABEL,
    File,
    FileError,
    Table,
    choose_profile,
    merge,
    merge_limits,
    parse_table,
    profile_table,
)

_MAX_CORNERS = 2_000
_MAX_GRID = 100_000


class StudyInfo(NamedTuple):
    """One shipped study, for lists."""

    name: str
    description: str
    profiles: list[str]
    path: Path


def list_studies() -> list[StudyInfo]:
    """List the studies that come with the project, by name."""
    rows = []
    for path in sorted(shipped_folder().glob("*.toml")):
        raw, _ = read_toml(path)
        rows.append(
            StudyInfo(
                path.stem, str(raw.get("description", "")), list(raw.get("profiles", {})), path
            )
        )
    return rows


def load_study(
    name_or_file: str,
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    trials: int | None = None,
    replicates: int | None = None,
) -> StudySpec:
    """Read a study by name or from a file, apply a profile and ``--set`` values, check it all.

    Args:
        name_or_file: a shipped study's name, or a path (ends in .toml or has a separator).
        profile: None takes ``demo`` where the file has it.
        overrides: configuration keys that hold for every trial; one that is searched leaves the
            search and the points.
        trials: the study's total instead of the file's.
        replicates: seeds with which every trial is trained, instead of the file's.

    Raises:
        InputError: one line with file and key (and line where it can be found).
    """
    path = find_study_file(name_or_file)
    name = check_name(path.stem)
    raw, text = read_toml(path)
    try:
        given = {"trials": trials, "replicates": replicates}
        return _build(path, name, raw, profile, dict(overrides or {}), given)
    except FileError as error:
        line = _line_of(error, text, profile)
        raise InputError(f"{path}{f':{line}' if line else ''}: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: tables are nested too deeply") from None


def _line_of(error: FileError, text: str, profile: str | None) -> int | None:
    if not error.key:
        return None
    # A profile's configuration keys may stand in it directly.
    sections = [error.section, error.section.removesuffix(".config")]
    if error.merged:  # the profile's word is the one that counts
        over = f"profiles.{profile or DEFAULT_PROFILE}"
        sections = [f"{over}.{error.section}", over, *sections]
    lines = (find_line(text, section, error.key) for section in sections)
    return next((line for line in lines if line), None)


def _build(
    path: Path, name: str, raw: dict, profile: str | None, overrides: dict, given: dict
) -> StudySpec:
    file = parse_table(File, raw, "")
    profiles = {name: _profile(name, table) for name, table in file.profiles.items()}
    for other in profiles.values():  # those that are not asked for are read, too
        merge([other])
        merge_limits([other])
    profile = choose_profile(profiles, profile)
    tables = [(file, ""), *([profiles[profile]] if profile is not None else [])]
    config, search, points = merge(tables)
    for key in overrides:
        search.pop(key, None)
    points, labels = _unique(
        {k: v for k, v in point.items() if k not in overrides} for point in points
    )
    merged = {
        key: value
        for table, _ in tables
        for key, value in table.model_dump(include=_SCALARS).items()
        if value is not None
    }
    merged |= {key: value for key, value in given.items() if value is not None}
    for key in given:
        if merged.get(key, 1) < 1:
            raise InputError(f"{key} = {merged[key]} does not fit; it should be at least 1")
    spec = StudySpec(
        name=name,
        source=str(path),
        profile=profile,
        config={**config, **overrides},
        search=search,
        points=points,
        labels=labels,
        limits=merge_limits(tables),
        **{**_DEFAULTS, **merged},
    )
    _check_spec(spec, overrides)
    return spec


def _profile(name: str, table: dict[str, Any]) -> tuple[Table, str]:
    """Read a profile; return it with the section where it stands."""
    section = f"profiles.{name}"
    return parse_table(Table, profile_table(table, section), section), section


_SCALARS = {"description", "sampler", "pruner", "trials", "seed", "replicates"}
_DEFAULTS = {"description": "", "sampler": "tpe", "pruner": "none", "trials": 10, "seed": 0}


def _unique(points: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the points and their labels, without points that are the same as one before: the
    same seed would train the same model."""
    unique: list[dict[str, Any]] = []
    labels: dict[str, str] = {}
    for labelled in points:
        point = {key: value for key, value in labelled.items() if key != LABEL}
        if point not in unique:
            unique.append(point)
            if LABEL in labelled:
                labels[point_key(point)] = labelled[LABEL].strip()
    return unique, labels


def _check_spec(spec: StudySpec, overrides: Mapping[str, Any]) -> None:
    if spec.sampler == "points" and not spec.points:
        raise FileError(
            "sampler = 'points' needs [[points]], and there are none", "", "sampler", merged=True
        )
    if spec.sampler == "grid":
        _check_grid(spec)
    if spec.replicates > 1 and not spec.replicable:
        raise FileError(
            "replicates set train.seed; leave it out of search and points",
            "", "replicates", merged=True,
        )  # fmt: skip
    _check_config(spec, {}, "config", overrides)
    for index, point in enumerate(spec.points, start=1):
        missing = [key for key in spec.search if key not in point]
        if missing and spec.sampler == "points":
            raise FileError(
                f"point {index} does not set {missing[0]}, which is searched; with "
                "sampler = 'points' each point sets every searched key",
                "",
                "points",
                merged=True,
            )
        _check_config(spec, point, "points", overrides)
    for corner in _corners(spec):
        _check_config(spec, corner, "search", overrides)


def _check_grid(spec: StudySpec) -> None:
    size = 1
    for key, search in spec.search.items():
        cells = search.grid_size()
        if cells is None:
            raise FileError(
                f"{key}: a grid needs a list of values, whole numbers, or a step",
                "search",
                key,
                merged=True,
            )
        size *= cells
    if size > _MAX_GRID:
        raise FileError(
            f"the grid has {size} cells; keep it to {_MAX_GRID}", "", "search", merged=True
        )


def _corners(spec: StudySpec) -> Iterable[dict[str, Any]]:
    """Every choice with every end of every range, as far as that many can be tried."""
    corners = {key: search.corners() for key, search in spec.search.items()}
    first = {key: values[0] for key, values in corners.items()}
    for key, values in corners.items():
        yield from ({**first, key: value} for value in values)
    together = (
        dict(zip(corners, values, strict=True)) for values in itertools.product(*corners.values())
    )
    yield from itertools.islice(together, _MAX_CORNERS)


def _check_config(
    spec: StudySpec, values: Mapping[str, Any], section: str, overrides: Mapping[str, Any]
) -> None:
    try:
        spec.config_of(values)
    except InputError as error:
        key = str(error).partition(":")[0]
        if key in overrides:
            raise InputError(f"--set {error}") from None
        where = section if key in values else "config"
        raise FileError(str(error), where, key, merged=True) from None
