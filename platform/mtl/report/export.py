"""Tables as CSV that a spreadsheet may open."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

# A spreadsheet takes a cell that starts with one of these as a formula and runs it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell(value: object) -> object:
    """Return a value as it goes into a CSV cell: text that looks like a formula gets a quote."""
    if isinstance(value, str):
        return "'" + value if value.startswith(_FORMULA_STARTS) else value
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, UTF-8, comma separated."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([cell(name) for name in header])
        writer.writerows([cell(value) for value in row] for row in rows)


def export_csv(study: optuna.Study, path: Path) -> int:
    """Write one row a trial, in the order of their numbers, and return how many there are.

    Columns: number, state, score, the tasks' scores, best epoch, minutes, trainable parameters,
    run id, reason, and ``config.<key>`` for every configuration key.
    """
    from .rows import FIXED_COLUMNS, leaderboard

    rows = sorted(leaderboard(study), key=lambda row: row["number"])
    keys = sorted({key for row in rows for key in row["config"]})
    header = [*FIXED_COLUMNS, *(f"config.{key}" for key in keys)]
    write_csv(path, header, ([*_fixed(row), *_configuration(row, keys)] for row in rows))
    return len(rows)


def _fixed(row: dict[str, Any]) -> list[object]:
    from .rows import FIXED_COLUMNS

    return [row[name] for name in FIXED_COLUMNS]


def _configuration(row: dict[str, Any], keys: Sequence[str]) -> list[object]:
    return [_plain(row["config"].get(key)) for key in keys]


def _plain(value: object) -> object:
    # A learning rate keeps every digit: the row must be enough to run the trial again.
    return repr(value) if isinstance(value, float | list) else value
