"""Finding the model that a run left."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.common.paths import given_path, is_file, is_folder
from minbert.common.pickles import is_pickle, refusal
from minbert.errors import InputError

from ..common.masking import masked
from ..storage.urls import file_path
from ..trials.states import COMPLETE
from . import tag_keys
from .looking import look
from .store import sqlite_file

if TYPE_CHECKING:
    from ..storage.home import Home


def model_folder(run: str, home: Home) -> Path:
    """Return the folder of a model in safetensors, fetched first if it lies on a server.

    Args:
        run: the id of a run; or a folder that has a ``model`` folder, or is one.

    Raises:
        InputError: no such run, or it has no model (it has not ended well).
    """
    folder = given_path(run)
    if is_folder(folder):
        return folder / "model" if (folder / "model").is_dir() else folder
    if is_file(folder):
        wrong = f"{run!r} is a file; give the folder that it lies in"
        raise InputError(refusal(run) if is_pickle(folder) else wrong)
    return _fetch(run, home)


def _fetch(run: str, home: Home) -> Path:
    from mlflow.exceptions import MlflowException

    uri = home.mlflow_uri
    file = sqlite_file(uri)
    if file is not None and not file.is_file():
        raise InputError(f"{run!r} is no folder, and no run is recorded in {home.path}")
    client = look(home)
    try:
        found = client.get_run(run)
    except MlflowException:
        raise InputError(
            f"{run!r} is no folder, and no run of {masked(uri)}; give a run's id, "
            "such as the one that mtl study best NAME shows"
        ) from None
    if not any(artifact.path == "model" for artifact in client.list_artifacts(run)):
        raise InputError(_why_no_model(run, found.data.tags))
    here = file_path(found.info.artifact_uri)
    if here is not None and (here / "model").is_dir():
        return here / "model"  # MLflow would copy it, to a folder that nobody removes
    return Path(client.download_artifacts(run, "model"))


def _why_no_model(run: str, tags: Mapping[str, str]) -> str:
    if tags.get(tag_keys.KIND) != "study":
        ended = tags.get(tag_keys.STATE) == COMPLETE
        why = "its files were removed" if ended else "it has not completed"
        return f"run {run} has no model: {why}"
    study = shlex.quote(tags.get(tag_keys.STUDY, "NAME"))
    return f"run {run} is a study's, not a trial's; mtl study best {study} names its best trial's"


def model_address(run_id: str, home: Home) -> str:
    """Return where a run keeps its model: a path on this machine, or an address."""
    root = look(home).get_run(run_id).info.artifact_uri
    return f"{file_path(root) or root}/model"
