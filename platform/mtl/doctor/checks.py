"""What a check says, and how a check that breaks is itself a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from minbert.errors import InputError

from ..common.masking import clean


class Check(NamedTuple):
    """One line of the doctor.

    Attributes:
        name: what was looked at.
        state: ``ok``; ``note`` for what works but should be known; ``bad`` for what will fail.
        found: what it is like.
        mend: what to type or do; empty where nothing is to be done.
    """

    name: str
    state: str
    found: str
    mend: str = ""


def ok(name: str, found: str) -> Check:
    """It is as it should be."""
    return Check(name, "ok", found)


def note(name: str, found: str, mend: str) -> Check:
    """It works, but a person should know."""
    return Check(name, "note", found, mend)


def bad(name: str, found: str, mend: str) -> Check:
    """Something will fail."""
    return Check(name, "bad", found, mend)


def guarded(name: str, look: Callable[..., Iterable[Check]], *given: Any) -> list[Check]:
    """Return the checks of ``look(*given)``; whatever it raises is one more, under this name."""
    checks: list[Check] = []
    try:
        checks.extend(look(*given))
    except InputError as error:
        checks.append(refused(name, error))
    except Exception as error:  # noqa: BLE001 (broken parts are what it looks for: none ends it)
        checks.append(bad(name, said(error), "put right what it names, then: mtl doctor"))
    return [_shown(check) for check in checks]


def _shown(check: Check) -> Check:
    """Each text in one line, and no secret in it."""
    found, mend = (" ".join(clean(text).split()) for text in (check.found, check.mend))
    return check._replace(found=found, mend=mend)


def refused(name: str, error: InputError, mend: str = "") -> Check:
    """Turn an input error into a check: what is wrong stands before its semicolon, and what
    would be right behind it."""
    found, _, right = str(error).partition("; ")
    return bad(name, found, right or mend or "put it right, then: mtl doctor")


def said(error: BaseException, length: int = 200) -> str:
    """Return the kind and the first line of an error, in at most ``length`` characters."""
    lines = clean(str(getattr(error, "orig", None) or error)).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= length else text[: length - 1] + "…"
