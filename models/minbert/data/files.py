"""Reading and checking the data files, as they are.

Files are tab-separated with a header and CSV quoting, a row a line. A row that cannot be used is
counted and named (file, line, why), never dropped in silence; more than 1 % of such rows in a file
is an error, and so is a label outside of its range.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..common.messages import short
from ..common.paths import is_folder
from ..errors import InputError
from ..tasks.builtin import TASKS
from ..tasks.task import DataFile, Task

LIMIT = 0.01  # of a file's rows may be unusable
DEFAULT_CACHE = ".mtl/cache"  # where whoever calls names none
csv.field_size_limit(1 << 24)


class Example(NamedTuple):
    """One row: its id, its one or two texts, its label (NaN where the file has none)."""

    id: str
    texts: tuple[str, ...]
    label: float


class Skipped(NamedTuple):
    """A row that cannot be used for training or scoring."""

    file: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.why}"


@dataclass
class Reading:
    """A file as read.

    Attributes:
        examples: the rows that can be used, in file order.
        skipped: the rows that cannot.
        rows: every row's id and texts, usable or not, in file order: predictions cover them all.
    """

    file: Path
    examples: list[Example] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    rows: list[Example] = field(default_factory=list)


def read_file(
    folder: Path, task: Task, source: DataFile, labelled: bool = True, limit: float = LIMIT
) -> Reading:
    """Read one file of a task.

    Args:
        labelled: whether the file carries labels; test files do not.
        limit: share of the rows that may be unusable.

    Raises:
        InputError: no such file, no such column, not UTF-8, a label outside its range, or more
            unusable rows than ``limit``.
    """
    reading = Reading(folder / source.name)
    lines = _lines(reading.file)
    header = _cells(lines[0], f"{reading.file}, line 1")
    wanted = ("id", *task.text_columns, *((task.label_column,) if labelled else ()))
    for column in wanted:
        if column not in header:
            raise InputError(
                f"{reading.file}, line 1: no column {column!r}; the header should name "
                f"{', '.join(wanted)}, separated by tabs"
            )
    places = [header.index(column) for column in wanted]
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            _read_row(reading, task, source, number, line, len(header), places)
    _judge(reading, limit)
    return reading


def _lines(file: Path) -> list[str]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}, line {line}: not UTF-8 text") from None


def _cells(line: str, where: str) -> list[str]:
    """Split a line at tabs, undoing CSV quotes. As it is given alone, a stray quote that is never
    closed spoils its own row only."""
    try:
        return next(csv.reader([line], delimiter="\t"), [])
    except csv.Error as error:
        raise InputError(f"{where}: {error}") from None


def _read_row(
    reading: Reading,
    task: Task,
    source: DataFile,
    number: int,
    line: str,
    columns: int,
    places: list[int],
) -> None:
    skip = reading.skipped.append
    name = source.name
    where = f"{reading.file}, line {number}"
    cells = _cells(line, where)
    if len(cells) != columns:
        quote = " (a quote that is not closed?)" if line.count('"') % 2 else ""
        skip(Skipped(name, number, f"{len(cells)} columns instead of {columns}{quote}"))
        cells += [""] * (columns - len(cells))
    picked = [cells[place].strip() for place in places]
    texts = tuple(picked[1 : 1 + len(task.text_columns)])
    unlabelled = Example(picked[0], texts, math.nan)
    reading.rows.append(unlabelled)
    if reading.skipped and reading.skipped[-1].line == number:
        return
    label = math.nan
    if len(picked) > 1 + len(texts):
        label, why = _label(picked[-1], task, source, where)
        if why:
            skip(Skipped(name, number, why))
            return
    if not all(texts):
        blank = task.text_columns[texts.index("")]
        skip(Skipped(name, number, f"{blank} is blank"))
        return
    reading.examples.append(Example(picked[0], texts, label))


def _label(text: str, task: Task, source: DataFile, where: str) -> tuple[float, str | None]:
    """Return a label on the task's scale, or why there is none."""
    if not text:
        return math.nan, f"{task.label_column} is blank"
    try:
        label = float(text)
    except ValueError:
        return math.nan, f"{task.label_column} {text[:40]!r} is not a number"
    low, high = source.labels
    whole = not task.whole_labels or label == round(label) if math.isfinite(label) else False
    if not (low <= label <= high and whole):
        kind = "a whole number" if task.whole_labels else "a number"
        raise InputError(
            f"{where}: {task.label_column} {text} is outside its range; "
            f"it should be {kind} from {low:g} to {high:g}"
        )
    return label * source.scale, None


def _judge(reading: Reading, limit: float) -> None:
    if not reading.rows:
        raise InputError(f"{reading.file}: no rows below the header")
    if len(reading.skipped) > limit * len(reading.rows):
        first = reading.skipped[0]
        raise InputError(
            f"{reading.file}, line {first.line}: {first.why}; {len(reading.skipped)} of "
            f"{len(reading.rows)} rows cannot be used, more than {limit:.0%}"
        )


@dataclass(frozen=True)
class FileReport:
    """What :func:`check_data` found in one file."""

    task: str
    split: str
    file: str
    rows: int
    used: int
    skipped: tuple[Skipped, ...]


def check_data(path: str, cache_dir: Path | None = None) -> list[FileReport]:
    """Read every file of a data folder and report its rows and what cannot be used.

    Test files are optional: they are needed for predictions only.

    Raises:
        InputError: a file cannot be used, or the folder lacks one.
    """
    folder = find_data(path, cache_dir)
    reports = []
    for task in TASKS:
        files = [("train", f) for f in task.train] + [("dev", task.dev), ("test", task.test)]
        for split, source in files:
            if split == "test" and not (folder / source.name).is_file():
                continue
            reading = read_file(folder, task, source, labelled=split != "test")
            reports.append(
                FileReport(
                    task.name,
                    split,
                    source.name,
                    len(reading.rows),
                    len(reading.examples),
                    tuple(reading.skipped),
                )
            )
    return reports


def find_data(path: str, cache_dir: Path | None = None) -> Path:
    """Return the folder that ``data.path`` means; the demo corpus is written if it is not there.

    Raises:
        InputError: no such folder.
    """
    if path == "demo":
        from ..demo.corpus import ensure_corpus

        return ensure_corpus(Path(cache_dir or DEFAULT_CACHE))
    if not is_folder(path):
        raise InputError(
            f"data.path: {short(path)} is not a folder; give one with the data files, or demo, or "
            "run: mtl data pull"
        )
    return Path(path)
