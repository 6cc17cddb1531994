"""Names of studies: safe as a part of a path, in a URL and on a command line, and told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from minbert import InputError

MAX_NAME = 200
RESERVED = {
    "train": "is what trainings of `mtl train` are recorded under",
    "default": "is an experiment that MLflow makes, with its files outside of the home",
}
"""Names that are taken, in the spelling of `fold`, and by what."""

# Control characters, halves of a character, line and paragraph separators, and what turns the
# direction of writing, by which a name can look like another.
_BAD = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # an emoji in colour, or not


def check_name(name: str) -> str:
    """Return a study's name if it is safe as a part of a path.

    Raises:
        InputError: it is empty, too long or reserved; it holds a separator, ``..`` or a control
            character; it begins with a dot or dash, or begins or ends with what file systems or
            command lines drop.
    """
    if taken := RESERVED.get(fold(name)):
        raise InputError(
            f"study name {name!r}: {fold(name)!r} {taken}; give the file, or --as, another name"
        )
    # 200 bytes: a variant's suffix and a lock's ending still fit a file system's 255.
    if not _is_safe(name) or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        short = name if len(name) <= 60 else name[:57] + "..."
        raise InputError(
            f"study name {short!r}: use up to {MAX_NAME} bytes without separators, leading dot "
            "or dash, '..', control characters, and blanks or a dot at the end"
        )
    return name


def _is_safe(name: str) -> bool:
    if any(c in "/\\" or c in _TURNS or unicodedata.category(c) in _BAD for c in name):
        return False
    whole = name == name.strip() and not name.startswith((".", "-")) and not name.endswith(".")
    return bool(name) and whole and ".." not in name


def fold(name: str) -> str:
    """Return what two names share that a file system or an eye may take for one: they differ only
    in case, in how characters are composed, or in what is not seen."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(c for c in folded if unicodedata.category(c) != "Cf" and c not in _SELECTORS)


def check_distinct(name: str, known: Iterable[str]) -> None:
    """Refuse a new name that is taken for a known one: their checkpoints could share a folder.

    Raises:
        InputError: naming the known one.
    """
    known = set(known)
    if name in known:
        return
    for other in sorted(known):
        if fold(other) == fold(name):
            raise InputError(
                f"study name {name!r} is too like the recorded study {other!r}: they differ only "
                f"in case or in how characters are written; use {other!r}, or --as NAME"
            )
