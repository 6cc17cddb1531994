"""Homes as earlier commands leave them: what takes each new home seconds is made once a process."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from minbert.data.datasets import load_corpus

from .tracking_samples import new_store


def furnish(home: Path) -> None:
    """Make a home with an empty MLflow store and the embedded data, written and tokenised."""
    new_store(home / "mlflow.db")
    shutil.copytree(_demo().name, home / "cache")


@cache
def _demo() -> TemporaryDirectory:
    folder = TemporaryDirectory()  # kept, and gone with this process
    load_corpus("demo", "demo", Path(folder.name))
    return folder
