"""Promoting a trial's model to MLflow's registry, from where MLflow loads it for prediction.

What is registered is the run's model folder (safetensors) and an MLmodel file that names the module
which loads it, ``mtl.pyfunc``: nothing is pickled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert import InputError

from ..common.faults import explain
from ..trials.states import COMPLETE, PRUNED
from . import tag_keys
from .limits import DESCRIPTION, cut, cut_name
from .run_models import model_folder
from .store import connect

if TYPE_CHECKING:
    import optuna

    from ..storage.home import Home

ALIAS = "champion"
_FOLDER = "champion"  # artifact of the run


@dataclass(frozen=True)
class Promotion:
    """What was registered.

    Attributes:
        name: of the registered model, which is the study's. version: counted from 1 by MLflow.
        uri: for ``mlflow.pyfunc.load_model``.
        new: False if this trial was the champion already.
    """

    name: str
    version: int
    uri: str
    trial: int
    score: float | None
    run_id: str
    new: bool


def promote(home: Home, study: optuna.Study, number: int | None = None) -> Promotion:
    """Register the model of a trial, the best one if none is named, and make it the champion.

    Raises:
        InputError: no such trial, or it has no model.
    """
    row = _chosen(study, number)
    client = connect(home.mlflow_uri, home.mlflow_artifacts)
    name, run_id = study.study_name, row["run_id"]
    name = cut_name(name)
    _ensure_registered(home, client, name, study.user_attrs.get("description") or "")
    version = _version_of(client, name, run_id)
    champion = _champion(client, name)
    if version is None:
        version = _register(home, client, name, row)
    elif not client.list_artifacts(run_id, _FOLDER):  # somebody has removed its files
        _upload(home, client, run_id)
    client.set_registered_model_alias(name, ALIAS, version)
    new = champion != version
    uri = f"models:/{name}@{ALIAS}"
    return Promotion(name, int(version), uri, row["number"], row["score"], run_id, new)


def _chosen(study: optuna.Study, number: int | None) -> Mapping[str, Any]:
    from ..trials.leaderboard import best_of, leaderboard, why_no_best

    rows = leaderboard(study)
    if number is None:
        wanted = best_of(rows)
        if wanted is None:
            raise InputError(f"study {study.study_name}: {why_no_best(rows)}; nothing to promote")
        return wanted
    for row in rows:
        if row["number"] == number:
            if row["state"] not in (COMPLETE, PRUNED):
                raise InputError(f"trial {number} is {row['state']}: it has no model")
            return row
    raise InputError(f"study {study.study_name} has no trial {number}")


def _ensure_registered(home: Home, client: Any, name: str, description: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=cut(description, DESCRIPTION))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            fault = explain(error, home.path)
            raise InputError(
                fault or f"MLflow does not register a model {name!r}: {error}"
            ) from None


def _version_of(client: Any, name: str, run_id: str) -> str | None:
    """Return the version that this run has been registered as, if it has."""
    for version in client.search_model_versions(f"run_id = '{run_id}'"):
        if version.name == name:
            return version.version
    return None


def _champion(client: Any, name: str) -> str | None:
    return client.get_registered_model(name).aliases.get(ALIAS)


def _register(home: Home, client: Any, name: str, row: Mapping[str, Any]) -> str:
    run_id = row["run_id"]
    _upload(home, client, run_id)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
    tags = {tag_keys.TRIAL: str(row["number"]), tag_keys.SCORE: f"{row['score']:.4f}"}
    about = f"Trial {row['number']} of study {name}: dev score {row['score']:.3f}"
    made = client.create_model_version(name, source, run_id, tags=tags, description=about)
    return made.version


def _upload(home: Home, client: Any, run_id: str) -> None:
    """Lay the model that MLflow loads beside the run's other artifacts."""
    with tempfile.TemporaryDirectory(prefix="mtl-champion-") as folder:
        packed = Path(folder) / _FOLDER
        _pack(model_folder(run_id, home), packed)
        client.log_artifacts(run_id, str(packed), _FOLDER)


def _pack(model: Path, target: Path) -> None:
    """Make an MLflow model of a model folder."""
    from mlflow.pyfunc import save_model

    save_model(
        path=str(target),
        loader_module="mtl.pyfunc",
        data_path=str(model),
        pip_requirements=["mtl"],
    )
