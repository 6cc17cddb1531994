"""Text for people: counted nouns, and what Markdown shows as it is (MLflow's notes and the
dashboard's render HTML and links)."""

from __future__ import annotations

import re
from html import escape

# What begins code, emphasis, a link, a picture, a cell, a strike-through or a formula; an
# underscore inside a word begins nothing.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
# At the beginning of a line: headings, lists, quotes, rules, tables. (HTML is escaped before.)
_BLOCK = re.compile(r"^(\d{1,9}(?=[.)])|(?=[#+=-]))")


def markdown(text: object) -> str:
    """Return a text that Markdown shows as it is within a line."""
    return _MARKS.sub(r"\\\g<0>", escape(" ".join(str(text).split()), quote=False))


def paragraph(text: object) -> str:
    """Return a text that Markdown shows as it is, as a paragraph of one line."""
    return _BLOCK.sub(r"\1\\", markdown(text))


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 trial``, ``16 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
