"""What runs hold, as MLflow's texts: values of keys and tags, datasets, where a run is from."""

from __future__ import annotations

import getpass
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from . import tag_keys
from .inputs import DatasetInput
from .limits import DIGEST


def dataset_fields(part: DatasetInput) -> dict[str, Any]:
    """Return a part of the data as a line of an outbox has it."""
    return asdict(part) | {"digest": part.digest[:DIGEST], "context": part.context}


def source_tags(tags: Mapping[str, object]) -> dict[str, object]:
    """Tags that MLflow's own columns read: user, source, version."""
    found: dict[str, object] = {
        "mlflow.source.name": "mtl",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": tags.get(tag_keys.GIT_COMMIT),
    }
    try:
        found["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        found["mlflow.user"] = None
    return found


def value_text(value: object) -> str:
    """Return a configuration value as `--set` reads it: TOML's true, [1, 2], 1e-05."""
    return json.dumps(value) if isinstance(value, bool | list | tuple) else str(value)


def tag_text(value: object) -> str:
    """Return a tag's value: texts as they are, all else as a configuration's."""
    return value if isinstance(value, str) else value_text(value)
