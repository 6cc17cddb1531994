"""The MLflow experiment of a study: found by its name, made where it is new, restored where it was
deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..storage.urls import file_url, is_server
from ..trials.labels import folder_name
from .artifact_places import SERVE, why_unreachable
from .limits import cut_name
from .store import is_database

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
        self._reachable: set[str] = set()

    def id_of(self, name: str) -> str:
        """Return the id of a study's experiment: created where it is new, restored where it was
        deleted, since MLflow lets no other have its name.

        Raises:
            InputError: its artifacts go where they cannot be put from here.
        """
        if name not in self._ids:
            found = self._client.get_experiment_by_name(cut_name(name))
            self._ids[name] = self._new(name) if found is None else self._there(found)
        return self._ids[name]

    def refuse_unreachable(self, experiment_id: str) -> None:
        """Refuse to put artifacts where the server would not find them.

        Raises:
            InputError: its artifacts go where they cannot be put from here.
        """
        if is_server(self._tracking_uri) and experiment_id not in self._reachable:
            self._refuse_unreachable(self._client.get_experiment(experiment_id))

    def _refuse_unreachable(self, experiment: Experiment, new: bool = False) -> None:
        wrong = None
        if is_server(self._tracking_uri):
            wrong = why_unreachable(self._tracking_uri, experiment.artifact_location)
        if wrong is None:
            self._reachable.add(experiment.experiment_id)
            return
        stays = "" if new or wrong.mend != SERVE else (
            "; an experiment keeps its place: then run the study under another name (--as)"
        )  # fmt: skip
        raise InputError(
            f"the files of experiment {experiment.name!r} cannot be put where it says: "
            f"{wrong.reason}; {wrong.mend}{stays}"
        )

    def forget(self) -> None:
        """Ask again: one was deleted, or is gone."""
        self._ids.clear()

    def restore(self, experiment_id: str) -> None:
        """Restore an experiment if it was deleted, and with it, as MLflow does, all its runs."""
        self._there(self._client.get_experiment(experiment_id))

    def _there(self, experiment: Experiment) -> str:
        self._refuse_unreachable(experiment)
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
        if is_database(self._tracking_uri):  # MLflow would take a folder of the working folder
            location = file_url(self._artifact_root / folder_name(name))
        try:
            return self._checked(self._client.create_experiment(cut_name(name), location))
        except MlflowException:
            found = self._client.get_experiment_by_name(cut_name(name))
            if found is None:
                raise
            return self._there(found)  # another process was quicker

    def _checked(self, experiment_id: str) -> str:
        """Return the id of a new experiment. One whose place cannot be reached gives its name back:
        it would keep that place when the server is put right."""
        if is_server(self._tracking_uri):
            experiment = self._client.get_experiment(experiment_id)
            try:
                self._refuse_unreachable(experiment, new=True)
            except InputError:
                unused = f"{experiment.name[:200]} (unused, {experiment_id})"
                self._client.rename_experiment(experiment_id, unused)
                self._client.delete_experiment(experiment_id)
                raise
        return experiment_id
