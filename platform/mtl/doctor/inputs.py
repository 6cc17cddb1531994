"""Backbone and data, looked at by the functions behind ``mtl backbone check``, ``data check``."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from minbert import InputError

from .checks import Check, note, ok, refused


def check_backbone(name: str, cache: Path) -> Iterator[Check]:
    """Load a backbone whole."""
    from minbert import check_backbone as check

    try:
        report = check(name, cache)
    except InputError as error:
        yield refused("backbone", error, f"mtl backbone check {shlex.quote(name)}")
        return
    shape = f"{report.shape.layers} layers of {report.shape.hidden_size}"
    yield ok("backbone", f"{name}: good; {shape}, {report.parameters:,} parameters")


def check_data(path: str, cache: Path) -> Iterator[Check]:
    """Read every data file."""
    command = f"mtl data check {shlex.quote(path)}"
    try:
        rows, skipped = _count(path, cache)
    except InputError as error:
        yield refused("data", error, command)
        return
    if skipped:
        yield note("data", f"{path}: {rows:,} rows good, {skipped:,} left out", command)
    else:
        yield ok("data", f"{path}: {rows:,} rows good")


def _count(path: str, cache: Path) -> tuple[int, int]:
    """Return how many rows can be used, and how many cannot."""
    from minbert import check_data as check
    from minbert.demo.corpus import corpus_version

    # The demo corpus is written where it is not there yet: elsewhere, for nothing is made here.
    if path == "demo" and not (cache / f"demo-corpus-{corpus_version()}").is_dir():
        with tempfile.TemporaryDirectory(prefix="mtl-doctor-") as folder:
            reports = check(path, Path(folder))
    else:
        reports = check(path, cache)
    return sum(r.used for r in reports), sum(len(r.skipped) for r in reports)
