"""Where things lie: the home folder, and the addresses of the two stores."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from minbert import InputError
from minbert.common.paths import given_path

from ..common.user_folders import settle_user_folders
from .urls import alike, check_spelling, is_server, plain, sqlite_url

EXPERIMENT = "train"
"""What trainings outside any study are recorded under: their experiment and their folders."""

_FOLDERS = ("artifacts/mlflow", "artifacts/optuna", "checkpoints", "cache", "spool", "logs")


def user_folders(home: Path) -> Path:
    """Return the place in a home for what libraries keep, where this user has no folder."""
    return home / "cache" / f"user-{os.getuid()}"


def settle_user() -> None:
    """See to it that libraries find folders of the user, before they are imported."""
    settle_user_folders(user_folders(plain(_given())))


def _given() -> Path:
    return given_path(os.environ.get("MTL_HOME") or ".mtl")


@dataclass(frozen=True)
class Home:
    """The folder that holds everything recorded, and the addresses of the two stores.

    Attributes:
        path: ``$MTL_HOME``, else ``./.mtl``; absolute.
        mlflow_uri: ``$MLFLOW_TRACKING_URI``, else the SQLite file ``mlflow.db`` of the home.
        storage_url: ``$MTL_STORAGE`` (an SQLAlchemy URL), else the home's ``optuna.db``.
    """

    path: Path
    mlflow_uri: str
    storage_url: str

    @classmethod
    def resolve(cls, create: bool = True) -> Home:
        """Find the home from the environment; create its folders unless told otherwise.

        Raises:
            InputError: a folder cannot be made or written; MTL_HOME names an unknown user, or has
                letters that no line of text can hold.
        """
        settle_user()
        given = _given()
        if str(given).startswith("~"):  # a folder of that name would be made here
            raise InputError(f"MTL_HOME={given}: there is no such user; give a folder")
        path = plain(given)
        check_spelling("MTL_HOME", path)
        tracking, storage = (os.environ.get(v) for v in ("MLFLOW_TRACKING_URI", "MTL_STORAGE"))
        home = cls(
            path=path,
            mlflow_uri=alike(tracking or sqlite_url(path / "mlflow.db")),
            storage_url=alike(storage or sqlite_url(path / "optuna.db")),
        )
        if create:
            home.create()
        return home

    @classmethod
    def resolve_to_look(cls) -> Home:
        """Find the home as `resolve` does, also one that is there and can only be read.

        Raises:
            InputError: nothing is recorded there, and it cannot be made.
        """
        home = cls.resolve(create=False)
        if not home.read_only:
            home.create()
        return home

    @property
    def read_only(self) -> bool:
        """Whether something is recorded here, and this user may only look at it."""
        recorded = any((self.path / name).is_file() for name in ("optuna.db", "mlflow.db"))
        return recorded and not os.access(self.path, os.W_OK)

    @property
    def mlflow_is_server(self) -> bool:
        """Whether MLflow is a server elsewhere, and no database that `mtl ui` serves."""
        return is_server(self.mlflow_uri)

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.artifacts / "mlflow"

    @property
    def optuna_artifacts(self) -> Path:
        return self.artifacts / "optuna"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def checkpoint_dir(self, study: str, number: int) -> Path:
        """The folder of a trial's checkpoints, while it has any."""
        return self.checkpoints / study / str(number)

    def create(self) -> None:
        """Make the folders.

        Raises:
            InputError: one cannot be made or written.
        """
        try:
            for folder in _FOLDERS:
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            probe = self.path / f".write-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"home {self.path} cannot be written: {reason}; set MTL_HOME to a folder that can"
            ) from None
