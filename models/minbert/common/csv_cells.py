"""Text in the cells of a CSV file that a spreadsheet may open."""

from __future__ import annotations

import re

# A spreadsheet takes such a cell as a formula and runs it, some after blanks too, and some with the
# full-width signs of East Asian keyboards.
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
_QUOTED = re.compile(rf"'*(?:{_FORMULA.pattern})")


def plain_cell(text: str) -> str:
    """Return a text as a cell: one that looks like a formula gets a quote before it."""
    return "'" + text if _QUOTED.match(text) else text


def cell_text(cell: str) -> str:
    """Return the text that :func:`plain_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _QUOTED.match(cell[1:]) else cell
