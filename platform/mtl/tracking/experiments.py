"""The MLflow experiment of a study: found by its name, made where it is new."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..common.masking import masked
from ..storage.urls import file_url
from ..trials.labels import folder_name
from .store import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


class Experiments:
    """The experiments of one MLflow store.

    Args:
        artifact_root: folder for artifacts where the store is a local SQLite file.
    """

    def __init__(self, client: MlflowClient, tracking_uri: str, artifact_root: Path) -> None:
        self._client, self._tracking_uri = client, tracking_uri
        self._artifact_root = artifact_root
        self._ids: dict[str, str] = {}

    def id_of(self, name: str) -> str:
        """Return the id of an experiment, created where it is new.

        Raises:
            InputError: it was deleted.
        """
        if name not in self._ids:
            found = self._client.get_experiment_by_name(name)
            self._ids[name] = self._new(name) if found is None else self._there(found)
        return self._ids[name]

    def _there(self, experiment: Experiment) -> str:
        if experiment.lifecycle_stage == "deleted":
            uri = shlex.quote(masked(self._tracking_uri))
            raise InputError(
                f"the MLflow experiment {experiment.name!r} was deleted: restore it with "
                f"`MLFLOW_TRACKING_URI={uri} mlflow experiments restore -x "
                f"{experiment.experiment_id}`, or run the study under another name with --as"
            )
        return experiment.experiment_id

    def _new(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = None
        if sqlite_file(self._tracking_uri) is not None:
            location = file_url(self._artifact_root / folder_name(name))
        try:
            return self._client.create_experiment(name, location)
        except MlflowException:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return self._there(found)  # another process was quicker
