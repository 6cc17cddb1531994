"""What MLflow keeps of a study, seen from the dispatcher: it creates runs and ends them.

The worker's half, which fills a trial's run, is ``mtl.recorder``. Both only watch: nothing here
decides what is trained.
"""

from __future__ import annotations

import getpass
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

from .markdown import paragraph
from .mlflow_store import UI_PORT, connect, sqlite_file
from .naming import run_name
from .recorder import RunRecorder
from .runs_view import offer_view, run_path, view_path

if TYPE_CHECKING:
    import optuna

__all__ = ["DatasetInput", "RunRecorder", "StudyTracker"]

# How a trial ended -> the run's status in MLflow, which knows no pruning.
_STATUS = {
    "complete": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}
_PARAMS_PER_CALL = 100  # MLflow's limit
_DIGEST_LENGTH = 36  # MLflow's limit


@dataclass(frozen=True)
class DatasetInput:
    """One part of the data of a run, as MLflow lists it: ``sst/train`` with digest and rows."""

    name: str
    digest: str
    rows: int
    source: str

    @property
    def context(self) -> str:
        """What the run used it for: ``train`` or ``dev``."""
        return self.name.rpartition("/")[2]


class StudyTracker:
    """The dispatcher's side of tracking: experiments, parent runs, trial runs.

    Args:
        tracking_uri: MLflow's store, an SQLAlchemy URL or the address of a server.
        artifact_root: folder for artifacts where the store is a local SQLite file; a server
            decides by itself where artifacts go.

    Raises:
        InputError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self._artifact_root = Path(artifact_root)
        self._client = connect(tracking_uri)
        self._experiments: dict[str, str] = {}

    def open_study(
        self,
        study_name: str,
        description: str,
        tags: Mapping[str, object],
        run_id: str | None = None,
    ) -> str:
        """Return the id of the study's parent run; ``run_id`` reopens the one that it has.

        Raises:
            InputError: the study's experiment was deleted in MLflow.
        """
        note = paragraph(description)
        if run_id is not None:
            self.reopen(run_id)
            self._client.set_tag(run_id, "mlflow.note.content", note)
            return run_id
        own = {"mtl.study": study_name, "mtl.kind": "study", "mlflow.note.content": note}
        return self._create_run(study_name, f"study {study_name}", own | {**tags})

    def create_trial_run(
        self,
        *,
        parent_run_id: str | None,
        study: str,
        number: int | None,
        params: Mapping[str, object],
        tags: Mapping[str, object],
        setting: str = "",
        datasets: Sequence[DatasetInput] = (),
    ) -> str:
        """Create the run of one training and return its id.

        Args:
            parent_run_id: the study's run; None for a training outside any study.
            study: the experiment's name.
            number: the trial's number; None outside a study.
            params: every configuration key with its value.
            setting: what distinguishes it from its neighbours; it is in the run's name.
            datasets: the data it reads.

        The run of this parent and number is created once: a dispatcher that was killed before it
        noted the id finds it here, filled or not.
        """
        kind = {"mtl.kind": "training" if number is None else "trial", "mtl.study": study}
        if number is not None:
            kind["mtl.trial"] = str(number)
        if parent_run_id is not None:
            kind["mlflow.parentRunId"] = parent_run_id
        name = run_name(number, setting)
        run_id = self.find_run(study, kind) if parent_run_id is not None else None
        if run_id is None:
            run_id = self._create_run(study, name, kind | {**tags})
        else:
            self.reopen(run_id)
        self._log_params(run_id, params)
        self._log_datasets(run_id, datasets)
        return run_id

    def find_run(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """Return the id of a run of an experiment that has all of these tags; None if none has."""
        terms = [f"tags.`{key}` = '{value}'" for key, value in tags.items() if key != "mtl.study"]
        found = self._client.search_runs(
            [self._experiment(experiment)], " and ".join(terms), max_results=1
        )
        return found[0].info.run_id if found else None

    def reopen(self, run_id: str) -> None:
        """Set a run RUNNING again, whatever became of it: deleted in the user interface, too."""
        run = self._client.get_run(run_id)
        if run.info.lifecycle_stage == "deleted":
            self._client.restore_run(run_id)
        self._client.update_run(run_id, status="RUNNING")
        self._client.set_tag(run_id, "mtl.state", "running")
        if "mtl.reason" in run.data.tags:
            self._client.delete_tag(run_id, "mtl.reason")

    def end(self, run_id: str, state: str, reason: str | None = None) -> None:
        """End a run. ``state`` is complete, pruned, failed or killed; ``reason`` says why."""
        status = _STATUS[state]
        self._client.set_tag(run_id, "mtl.state", state)
        if reason is not None:
            self._client.set_tag(run_id, "mtl.reason", reason)
        self._client.set_terminated(run_id, status, end_time=_now())

    def record_study(
        self, run_id: str, rows: list[dict[str, Any]], optuna_study: optuna.Study
    ) -> None:
        """Put leaderboard, figures and description of the study on its parent run, anew each time.

        Args:
            rows: the leaderboard (``mtl.report.leaderboard``).
        """
        from .report.study import describe_study, leaderboard_table, write_study_files

        with tempfile.TemporaryDirectory(prefix="mtl-study-") as folder:
            write_study_files(rows, optuna_study, Path(folder))
            self._client.log_artifacts(run_id, folder)
        # Not log_table, which appends: a study that is continued would list its trials twice.
        self._client.log_dict(run_id, leaderboard_table(rows), "leaderboard.json")
        table = json.dumps([{"path": "leaderboard.json", "type": "table"}])
        self._client.set_tag(run_id, "mlflow.loggedArtifacts", table)
        self._client.set_tag(run_id, "mlflow.note.content", describe_study(rows, optuna_study))

    def address(self, run_id: str) -> str:
        """Return where a browser finds a run: on the server, or where `mtl ui` serves it."""
        return self.root + run_path(self._experiment_of(run_id), run_id)

    def offer_runs(self, run_id: str, keys: Sequence[str]) -> str:
        """Give the study with this parent run a list of its runs, with the configuration keys
        that tell them apart as columns; return its path on the server."""
        experiment = self._experiment_of(run_id)
        offer_view(self._client, experiment, run_id, keys)
        return view_path(experiment)

    @property
    def root(self) -> str:
        """Where a browser finds MLflow: the server, or where `mtl ui` serves the file. In a
        container the server has another name outside, which $MTL_MLFLOW_ADDRESS gives."""
        root = (os.environ.get("MTL_MLFLOW_ADDRESS") or self.tracking_uri).rstrip("/")
        served = root.startswith(("http://", "https://"))
        return root if served else f"http://127.0.0.1:{UI_PORT}"

    def _experiment_of(self, run_id: str) -> str:
        return self._client.get_run(run_id).info.experiment_id

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Keep a text, a traceback say, as the artifact ``path`` of a run."""
        self._client.log_text(run_id, text, path)

    def _create_run(self, experiment: str, name: str, tags: Mapping[str, object]) -> str:
        tags = {**_source_tags(tags), **tags, "mtl.state": "running"}
        values = {key: _tag(value) for key, value in tags.items() if value is not None}
        run = self._client.create_run(self._experiment(experiment), tags=values, run_name=name)
        return run.info.run_id

    def _experiment(self, name: str) -> str:
        """Return the id of the experiment, created where it is new."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name)
            self._experiments[name] = self._new_experiment(name) if found is None else _id(found)
        return self._experiments[name]

    def _new_experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        location = None
        if sqlite_file(self.tracking_uri) is not None:
            location = (self._artifact_root.absolute() / _folder_name(name)).as_uri()
        try:
            return self._client.create_experiment(name, location)
        except MlflowException:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return _id(found)  # another process was quicker

    def _log_params(self, run_id: str, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        values = [Param(key, _value(value)) for key, value in params.items()]
        for start in range(0, len(values), _PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=values[start : start + _PARAMS_PER_CALL])

    def _log_datasets(self, run_id: str, datasets: Sequence[DatasetInput]) -> None:
        if datasets:
            self._client.log_inputs(run_id, datasets=[_mlflow_input(part) for part in datasets])


def _mlflow_input(part: DatasetInput):
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    dataset = Dataset(
        name=part.name,
        digest=part.digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": part.source}),
        profile=json.dumps({"num_rows": part.rows}),
    )
    return MlflowDatasetInput(dataset, tags=[InputTag("mlflow.data.context", part.context)])


def _source_tags(tags: Mapping[str, object]) -> dict[str, object]:
    """Tags that MLflow's own columns read: user, source, version."""
    found: dict[str, object] = {
        "mlflow.source.name": "mtl",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": tags.get("mtl.git_commit"),
    }
    try:
        found["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        found["mlflow.user"] = None
    return found


def _id(experiment) -> str:
    if experiment.lifecycle_stage == "deleted":
        raise InputError(
            f"the MLflow experiment {experiment.name!r} was deleted: restore it with "
            f"`mlflow experiments restore -x {experiment.experiment_id}`, "
            "or run the study under another name with --as"
        )
    return experiment.experiment_id


def _folder_name(study: str) -> str:
    """Return a folder's name for a study's name, which may hold anything; different for each."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in study)[:60]
    return plain if plain == study else f"{plain}-{sha256(study.encode()).hexdigest()[:8]}"


def _value(value: object) -> str:
    """Return a configuration value as `--set` reads it: TOML's true, [1, 2], 1e-05."""
    return json.dumps(value) if isinstance(value, bool | list | tuple) else str(value)


def _tag(value: object) -> str:
    return value if isinstance(value, str) else _value(value)


def _now() -> int:
    return int(time.time() * 1000)
