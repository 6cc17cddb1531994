"""What a run is said to have read: datasets with their digests, and the commit of the sources."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class DatasetInput:
    """One part of the data of a run, as MLflow lists it: ``sst/train`` with digest and rows.

    Attributes:
        source: the address of the folder that it was read from.
    """

    name: str
    digest: str
    rows: int
    source: str

    @property
    def context(self) -> str:
        """What the run used it for: ``train`` or ``dev``."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True)
class Inputs:
    """What one configuration reads.

    Attributes:
        datasets: for MLflow, a training and a dev part of each task.
        tags: digests of data and backbone.
    """

    datasets: list[DatasetInput]
    tags: dict[str, str]


@cache
def git_commit() -> str | None:
    """The commit of the sources that run; None where they are no git checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
