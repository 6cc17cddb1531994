"""Tables as CSV that a spreadsheet may open."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from minbert.common.csv_cells import plain_cell
from minbert.errors import InputError

from ..trials.leaderboard import FIXED_COLUMNS, leaderboard

if TYPE_CHECKING:
    import optuna


def cell(value: object) -> object:
    """Return a value as it goes into a CSV cell: text that looks like a formula gets a quote.

    Numbers keep every digit; lists are written as JSON.
    """
    if isinstance(value, list | tuple):
        return json.dumps(value)
    if isinstance(value, str):
        return plain_cell(value)
    return "" if value is None else value


def write_csv(out: Path | TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table, comma separated, to a file (UTF-8) or an open stream.

    Raises:
        InputError: the file cannot be written.
    """
    if not isinstance(out, Path):
        _write(out, header, rows)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8", newline="") as stream:
            _write(stream, header, rows)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error


def _write(stream: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([cell(name) for name in header])
    writer.writerows([cell(value) for value in row] for row in rows)


def export_csv(study: optuna.Study, out: Path | TextIO) -> int:
    """Write a study's leaderboard to a file or stream; return the number of rows.

    Columns: those of the leaderboard, then ``config.<key>`` for every configuration key.
    """
    rows = leaderboard(study)
    write_rows(rows, out)
    return len(rows)


def write_rows(rows: list[dict[str, Any]], out: Path | TextIO) -> None:
    """Write leaderboard rows as CSV to a file or stream."""
    keys = sorted({key for row in rows for key in row["config"]})
    header = [*FIXED_COLUMNS, *(f"config.{key}" for key in keys)]
    lines = ([*map(row.get, FIXED_COLUMNS), *map(row["config"].get, keys)] for row in rows)
    write_csv(out, header, lines)
