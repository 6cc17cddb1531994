"""Runs that wait for MLflow, and what was in the way when they were last sent."""

from __future__ import annotations

from collections.abc import Iterator

from ..storage.home import Home
from ..tracking.waiting import waiting
from .checks import Check, note, ok


def waiting_runs(home: Home) -> Iterator[Check]:
    """Say how many runs MLflow does not have whole, and why."""
    found = waiting(home.spool)
    if found.runs:
        yield note("waiting runs", found.words, "mtl study sync sends them, or the study that runs")
    else:
        yield ok("waiting runs", "none waits for MLflow")
