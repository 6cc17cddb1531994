"""What MLflow's store says of a home's runs, where it is an SQLite file; and forgetting runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from minbert import InputError

from ..common.masking import masked
from ..storage.sqlite import open_reading
from ..storage.urls import file_path
from ..tracking import tag_keys
from ..tracking.places import Places
from ..tracking.store import connect, sqlite_file

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from ..storage.home import Home


class Run(NamedTuple):
    """One run as the store has it.

    Attributes:
        status: MLflow's word: RUNNING, FINISHED, FAILED, KILLED.
        deleted: somebody deleted it; it can still be restored.
        study: of which it is; None outside any study and for runs that are not ours.
        folder: of its artifacts and whatever else; None where that is no folder.
    """

    id: str
    name: str
    status: str
    deleted: bool
    study: str | None
    folder: Path | None


class Runs:
    """The runs of a store.

    Attributes:
        by_id: every run, deleted ones too.
        registered: runs from which a model version was registered: its files are theirs.
        inputs: what they were trained on: pairs of data folder and backbone.
        experiments: the folders in which it has runs lie.
        since: when the first of them began, in seconds since the epoch; None without any.
    """

    def __init__(self, connection: Connection, places: Places) -> None:
        rows = _all(connection, _RUNS)
        self.by_id = {row.run_uuid: _run(row, places) for row in rows}
        found = [
            file_path(places.here(row.artifact_location) or "")
            for row in _all(connection, _FOLDERS)
        ]
        self.experiments = {folder for folder in found if folder is not None}
        self.since = min((row.start_time / 1000 for row in rows if row.start_time), default=None)
        self.registered = {row.run_id for row in _all(connection, _VERSIONS)}
        self.inputs = {(row.path, row.backbone) for row in _all(connection, _INPUTS)}


_RUNS = f"""
select r.run_uuid, r.name, r.status, r.lifecycle_stage, r.artifact_uri, r.start_time,
       s.value as study, k.value as kind
from runs r left join tags s on s.run_uuid = r.run_uuid and s.key = '{tag_keys.STUDY}'
            left join tags k on k.run_uuid = r.run_uuid and k.key = '{tag_keys.KIND}'
"""
_FOLDERS = "select artifact_location from experiments"
_VERSIONS = "select run_id from model_versions where current_stage <> 'Deleted_Internal'"
_INPUTS = """
select distinct p.value as path, b.value as backbone from params p
join params b on b.run_uuid = p.run_uuid and b.key = 'backbone' where p.key = 'data.path'
"""


def _all(connection: Connection, statement: str) -> list:
    from sqlalchemy import text

    return list(connection.execute(text(statement)))


def _run(row: Any, places: Places) -> Run:
    artifacts = file_path(places.here(row.artifact_uri) or "")
    # Below the run's folder lie its artifacts; what is laid out otherwise is not ours to remove.
    ours = artifacts if artifacts is not None and artifacts.parent.name == row.run_uuid else None
    study = row.study if row.kind in ("study", "trial") else None
    deleted = row.lifecycle_stage == "deleted"
    folder = None if ours is None else ours.parent
    return Run(row.run_uuid, row.name or "", row.status, deleted, study, folder)


def read_runs(home: Home) -> Runs | None:
    """Read MLflow's store so that looking changes nothing; None where it is a server's, or nothing
    was recorded.

    Raises:
        InputError: the file cannot be read.
    """
    import sqlalchemy
    from sqlalchemy.exc import SQLAlchemyError

    file = sqlite_file(home.mlflow_uri)
    if file is None or not file.is_file():
        return None
    places = Places.of(file, home.mlflow_artifacts)
    engine = sqlalchemy.create_engine(home.mlflow_uri, creator=lambda: open_reading(file, 60))
    try:
        with engine.connect() as connection:
            there = sqlalchemy.inspect(connection).has_table("runs")
            return Runs(connection, places) if there else None
    except (SQLAlchemyError, sqlite3.Error) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())[:300]
        raise InputError(
            f"MLflow's store {masked(home.mlflow_uri)} cannot be read: {reason}"
        ) from error
    finally:
        engine.dispose()


def forget_run(home: Home, run_id: str) -> None:
    """Remove a deleted run from the store for good, as ``mlflow gc`` does it.

    Its artifacts are removed before: `mlflow gc` would follow any address that stands in the store,
    out of the home too.
    """
    client = connect(home.mlflow_uri, home.mlflow_artifacts)
    client._tracking_client.store._hard_delete_run(run_id)
