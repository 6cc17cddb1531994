"""``--set KEY=VALUE``: configuration keys given on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

from minbert import InputError
from minbert.common.messages import short
from minbert.config import check_key


def parse_sets(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``KEY=VALUE`` pairs. A value is a TOML literal; a bare word is a string.

    Raises:
        InputError: no equals sign, an unknown key, or a value that begins like a literal and
            is none.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().strip("\"'")
        if not equals or not key:
            raise InputError(f"--set {short(pair)}: write KEY=VALUE, for example train.lr=1e-4")
        check_key(key)
        values[key] = _literal(key, text.strip())
    return values


def _literal(key: str, text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # also: an integer of thousands of digits
        if text[:1] in ("[", "{", '"', "'"):
            raise InputError(f"--set {key}: {short(text)} is not a TOML value") from None
        return text
    # Several lines, or a date: what was typed is the text itself.
    plain = parsed.keys() == {"value"} and isinstance(
        parsed["value"], bool | int | float | str | list | dict
    )
    return parsed["value"] if plain else text
