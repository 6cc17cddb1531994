"""How long texts may be in MLflow's tables. SQLite takes longer ones, PostgreSQL and MySQL do not:
what is longer is cut, so that one sees it."""

from __future__ import annotations

from hashlib import sha256

RUN_NAME = 250
TAG_VALUE = 8000
PARAM_VALUE = 6000
NAME = 256
"""Of experiments and registered models."""
DESCRIPTION = 5000
"""Of registered models and their versions."""
DIGEST = 36
"""Of a dataset."""


def cut(text: str, length: int) -> str:
    """Return a text of at most so many characters; an ellipsis shows where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def cut_name(name: str) -> str:
    """Return the name that an experiment or a registered model has for a study: its own, or one
    that ends differently for each where that is too long."""
    if len(name) <= NAME:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{name[: NAME - 10]}…-{digest}"
