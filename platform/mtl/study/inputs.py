"""The data and the backbones that a study reads, known by their content: a path may hold other
files tomorrow, and a copy elsewhere is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

if TYPE_CHECKING:
    from .spec import StudySpec

INPUT_KEYS = ("data.path", "backbone")
"""The configuration keys that name files."""
INPUTS = "inputs"
"""The attribute of a study that holds its `Digests`."""
Digests = Mapping[str, Mapping[str, str]]
"""For each of these keys and each of its values, the sha256 of what lies there, in hex."""


def input_digest(key: str, value: str, cache: Path) -> str:
    """Return the sha256 of the files that a value of one of `INPUT_KEYS` names. Files that this
    process has read before and that have not changed since are not read again.

    Raises:
        InputError: they cannot be read.
    """
    from minbert.backbone.weights import content_digest
    from minbert.data.datasets import data_digest

    return (data_digest if key == "data.path" else content_digest)(value, cache)


def read_digests(spec: StudySpec, cache: Path) -> dict[str, dict[str, str]]:
    """Return the digests of all that the study names. What cannot be read is left out: it is
    refused where it is needed."""
    found: dict[str, dict[str, str]] = {}
    for key in INPUT_KEYS:
        for value in filter(None, spec.values_of(key)):
            with contextlib.suppress(InputError):
                found.setdefault(key, {})[value] = input_digest(key, value, cache)
    return found


def merged(known: Digests, now: Digests) -> dict[str, dict[str, str]]:
    """Return what is known with what is new."""
    return {key: {**known.get(key, {}), **now.get(key, {})} for key in (*known, *now)}


def changed(known: Digests, now: Digests) -> list[str]:
    """Name the keys of which a value holds other files now."""
    return [
        key
        for key, digests in now.items()
        if any(known.get(key, {}).get(value, digest) != digest for value, digest in digests.items())
    ]


def moved(key: str, old: str, new: str, known: Digests, now: Digests) -> bool:
    """Say whether a value of a key is another path to the same files."""
    digest = known.get(key, {}).get(old)
    return digest is not None and digest == now.get(key, {}).get(new)


def as_now(config: Mapping[str, Any], spec: StudySpec, known: Digests) -> dict[str, Any]:
    """Return a recorded configuration with its data and backbone where the study finds the same
    files now."""
    fixed = spec.settings["config"]
    found = {
        key: fixed[key]
        for key in INPUT_KEYS
        if key in fixed and key in config and moved(key, config[key], fixed[key], known, known)
    }
    return {**config, **found}
