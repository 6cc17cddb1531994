"""The MLflow experiment of a study: found by its name, made where it is new, restored where it was
deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.urls import file_url
from ..trials.labels import folder_name
from .limits import cut_name
from .store import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment


class Experiments:
    """The experiments of one MLflow store.

    Args:
        artifact_root: folder for artifacts where the store is a local SQLite file.
        say: is told what a person should know: that one was restored.
    """

    def __init__(
        self,
        client: MlflowClient,
        tracking_uri: str,
        artifact_root: Path,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client, self._tracking_uri = client, tracking_uri
        self._artifact_root, self._say = artifact_root, say
        self._ids: dict[str, str] = {}

    def id_of(self, name: str) -> str:
        """Return the id of a study's experiment: created where it is new, restored where it was
        deleted, since MLflow lets no other have its name."""
        if name not in self._ids:
            found = self._client.get_experiment_by_name(cut_name(name))
            self._ids[name] = self._new(name) if found is None else self._there(found)
        return self._ids[name]

    def forget(self) -> None:
        """Ask again: one was deleted, or is gone."""
        self._ids.clear()

    def restore(self, experiment_id: str) -> None:
        """Restore an experiment if it was deleted, and with it, as MLflow does, all its runs."""
        self._there(self._client.get_experiment(experiment_id))

    def _there(self, experiment: Experiment) -> str:
        if experiment.lifecycle_stage == "deleted":
            self._client.restore_experiment(experiment.experiment_id)
            self._say(
                f"the experiment {experiment.name!r} was deleted in MLflow while more is to be "
                "recorded in it: it is restored, with its runs"
            )
        return experiment.experiment_id

    def _new(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = None
        if sqlite_file(self._tracking_uri) is not None:
            location = file_url(self._artifact_root / folder_name(name))
        try:
            return self._client.create_experiment(cut_name(name), location)
        except MlflowException:
            found = self._client.get_experiment_by_name(cut_name(name))
            if found is None:
                raise
            return self._there(found)  # another process was quicker
