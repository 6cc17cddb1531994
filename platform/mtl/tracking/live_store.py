"""MLflow's store as a process has it open that records for hours."""

from __future__ import annotations

from pathlib import Path

from .store import connect, sqlite_file

CHANGED = "is not the file that it was"
"""Said where a store's file was put aside, or replaced."""


class LiveStore:
    """One MLflow store, by a client that notices when its file is put aside.

    A connection follows an SQLite file that is moved or removed: what is written then is lost to
    whoever looks at the store's address.

    Args:
        artifact_root: see `mtl.tracking.store.connect`.

    Raises:
        InputError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path) -> None:
        self._uri, self._root = tracking_uri, artifact_root
        self._file = sqlite_file(tracking_uri)
        self.client = connect(tracking_uri, artifact_root)
        self._let_go()  # of a file that somebody put aside since this process had it open first
        self._identity = _identity(self._file)

    def check(self) -> None:
        """Look whether the file is still the one that is open; else open the one that is there
        now, or make it.

        Raises:
            InputError: it cannot be opened.
            MlflowException: it was another, so what is asked for must be looked for anew.
        """
        if self._file is None or _identity(self._file) == self._identity:
            return
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        self._let_go()
        connect(self._uri, self._root)
        self._identity = _identity(self._file)
        raise MlflowException(f"{self._file} {CHANGED}", RESOURCE_DOES_NOT_EXIST)

    def _let_go(self) -> None:
        if self._file is not None:
            self.client._tracking_client.store.engine.dispose()  # type: ignore[attr-defined]


def _identity(file: Path | None) -> tuple[int, int] | None:
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return status and (status.st_dev, status.st_ino)
