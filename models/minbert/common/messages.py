"""How values and pydantic's complaints are put into the one line of an error message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def short(value: object) -> str:
    """Return a value as it is written, cut to what a line of a message has room for."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no integers of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


def one_line(error: ValidationError, key: str = "") -> str:
    """Say a validation error in one line: the key, what was given, what would be right."""
    first = error.errors()[0]
    key = key or ".".join(part for part in first["loc"] if isinstance(part, str))
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    given = short(first.get("input"))
    if first["type"] == "string_pattern_mismatch":
        return f"{key}: {given} is not a device; use auto, cpu, cuda or cuda:N"
    if first["type"] in ("tuple_type", "too_short"):
        return f"{key}: {given} does not fit; it should be a list with at least one task"
    return f"{key}: {given} does not fit; it {wish(first['msg'])}"


def wish(message: str) -> str:
    """Return what a message of pydantic's asks for, to follow ``it``: ``should be ...``."""
    subject, should, rest = message.partition(" should ")
    if not should:  # a sentence of another kind: said whole
        return f"cannot be used: {subject}"
    return "should not be empty" if rest == "have at least 1 character" else f"should {rest}"
