"""Pieces of HTML: escaped text, tables, and numbers with the digits that their interval supports.

Functions that take ``text`` escape it; what is called ``html`` must be HTML already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import floor, log10
from typing import Any

_USUAL = 3  # decimals of a score without an interval


def decimals(halves: Iterable[float]) -> int:
    """Return how many decimals values with such half-widths deserve: two digits of the finest."""
    known = [half for half in halves if half > 0]
    return min(4, max(2, 1 - floor(log10(min(known))))) if known else _USUAL


def half_width(low: float | None, high: float | None) -> float:
    """Return half the width of an interval; 0 where there is none."""
    return 0.0 if low is None or high is None else (high - low) / 2


def number(value: float | None, places: int = _USUAL, signed: bool = False) -> str:
    """Write a number with a real minus sign; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:+.{places}f}" if signed else f"{value:.{places}f}"
    return text.replace("-", "−")


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    places: int = _USUAL,
    signed: bool = False,
) -> str:
    """Return a number as HTML, its interval small beside it."""
    if value is None or low is None or high is None:
        return number(value, places, signed)
    ends = f"{number(low, places, signed)} to {number(high, places, signed)}"
    return f"{number(value, places, signed)} <small>({ends})</small>"


def estimate(given: Mapping[str, Any] | None, places: int | None = None, signed: bool = False):
    """Return an estimate (``value``, ``low``, ``high``) as HTML."""
    if not given:
        return "–"
    low, high = given["low"], given["high"]
    if places is None:
        places = decimals([half_width(low, high)])
    return with_interval(given["value"], low, high, places, signed)


def count(value: int | None) -> str:
    """Write a count with its thousands apart."""
    return "–" if value is None else f"{value:,}"


def minutes(value: float | None) -> str:
    """Write minutes with what digits they need."""
    return number(value, 1 if value is not None and value >= 1 else 2)


def text(value: object) -> str:
    """Return text as HTML."""
    return escape(str(value))


def paragraph(html: str, kind: str = "") -> str:
    """Return a paragraph."""
    return f'<p class="{kind}">{html}</p>' if kind else f"<p>{html}</p>"


def listing(items: Iterable[str]) -> str:
    """Return a list of texts."""
    return "<ul>" + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def commands(lines: Iterable[str]) -> str:
    """Return command lines, to be copied."""
    return "<pre>" + "\n".join(text(line) for line in lines) + "</pre>"


def table(head: Sequence[str], rows: Iterable[Sequence[str] | tuple[str, Sequence[str]]]) -> str:
    """Return a table; wide ones scroll by themselves.

    Args:
        head: the columns' titles as text; one that ends in ``>`` holds numbers.
        rows: cells as HTML; a row may be a pair of its class and its cells.
    """
    numeric = [title.endswith(">") for title in head]
    titles = "".join(
        f'<th scope="col"{_right(right)}>{text(title.removesuffix(">"))}</th>'
        for title, right in zip(head, numeric, strict=True)
    )
    body = "".join(_row(given, numeric) for given in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(given: Sequence, numeric: Sequence[bool]) -> str:
    kind, cells = given if len(given) == 2 and not isinstance(given[1], str) else ("", given)
    inside = "".join(
        f"<td{_right(right)}>{cell}</td>" for cell, right in zip(cells, numeric, strict=True)
    )
    return f'<tr class="{kind}">{inside}</tr>' if kind else f"<tr>{inside}</tr>"


def _right(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return pairs as a list of names (text) and what they are (HTML)."""
    lines = "".join(f"<dt>{text(name)}</dt><dd>{html}</dd>" for name, html in pairs)
    return f"<dl>{lines}</dl>"
