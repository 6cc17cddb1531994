"""What MLflow's store says of a home's runs, where it is an SQLite file; and forgetting runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from minbert import InputError

from ..common.masking import masked
from ..storage.sqlite import undisturbed
from ..storage.urls import file_path
from ..tracking import tag_keys
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
    """

    def __init__(self, connection: Connection) -> None:
        rows = _all(connection, _RUNS)
        self.by_id = {row.run_uuid: _run(row) for row in rows}
        self.registered = {row.run_id for row in _all(connection, _VERSIONS)}
        self.inputs = {(row.path, row.backbone) for row in _all(connection, _INPUTS)}


_RUNS = f"""
select r.run_uuid, r.name, r.status, r.lifecycle_stage, r.artifact_uri, s.value as study,
       k.value as kind
from runs r left join tags s on s.run_uuid = r.run_uuid and s.key = '{tag_keys.STUDY}'
            left join tags k on k.run_uuid = r.run_uuid and k.key = '{tag_keys.KIND}'
"""
_VERSIONS = "select run_id from model_versions where current_stage <> 'Deleted_Internal'"
_INPUTS = """
select distinct p.value as path, b.value as backbone from params p
join params b on b.run_uuid = p.run_uuid and b.key = 'backbone' where p.key = 'data.path'
"""


def _all(connection: Connection, statement: str) -> list:
    from sqlalchemy import text

    return list(connection.execute(text(statement)))


def _run(row) -> Run:
    artifacts = file_path(row.artifact_uri or "")
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
    with undisturbed(file):
        engine = sqlalchemy.create_engine(home.mlflow_uri, connect_args={"timeout": 60})
        try:
            with engine.connect() as connection:
                there = sqlalchemy.inspect(connection).has_table("runs")
                return Runs(connection) if there else None
        except SQLAlchemyError as error:
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
    client = connect(home.mlflow_uri)
    client._tracking_client.store._hard_delete_run(run_id)
