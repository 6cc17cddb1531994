"""From the operations of an outbox to calls of MLflow's client: in order, and none twice.

Every operation can be sent again without harm, since a process may die between a call and the
note that it was made: runs are found by their tags before they are created, points that a run has
are left out, and the rest overwrites what is the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

from ..common.masking import clean
from ..trials.states import RUNNING, TO_MLFLOW
from . import tag_keys
from .experiments import Experiments
from .outbox import Operation, Outbox, Run
from .runs_view import offer_view
from .store import connect

if TYPE_CHECKING:
    from mlflow.entities import Metric

_PARAMS_PER_CALL = 100  # MLflow's limits
_METRICS_PER_CALL = 1000
# To these MLflow will have no other answer another day.
_OF_THE_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


class AwayError(Exception):
    """MLflow cannot be reached, or is not in order: what waits is sent later."""


class RefusedError(Exception):
    """MLflow will never take this: the run or its experiment is gone, say."""


class Sender:
    """Sends outboxes to one MLflow store.

    Args:
        tracking_uri: an SQLAlchemy URL or the address of a server.
        artifact_root: folder for artifacts where the store is a local SQLite file; a server
            decides by itself where artifacts go.

    Raises:
        InputError: the store cannot be opened.
    """

    def __init__(self, tracking_uri: str, artifact_root: Path) -> None:
        self.tracking_uri = tracking_uri
        self._client = connect(tracking_uri, Path(artifact_root))
        self._experiments = Experiments(self._client, tracking_uri, Path(artifact_root))
        self._has: dict[Path, set[tuple[str, int]]] = {}  # points of runs, asked once a process

    def send(self, outbox: Outbox) -> None:
        """Send everything that waits.

        Raises:
            AwayError, RefusedError: what was sent until then is noted; the rest waits.
        """
        while waiting := outbox.waiting():
            for group in _groups(waiting):
                self._translated(outbox, group)
                outbox.mark_sent(group[-1].end)

    def forget(self, outbox: Outbox) -> None:
        """Drop what is remembered of an outbox that is removed."""
        self._has.pop(outbox.folder, None)

    def _translated(self, outbox: Outbox, group: list[Operation]) -> None:
        import requests
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._do(outbox, group)
        except InputError as error:
            raise RefusedError(str(error)) from error
        except MlflowException as error:
            final = error.error_code in _OF_THE_RUN or "Invalid url" in str(error)
            raise (RefusedError if final else AwayError)(_why(error)) from error
        except (requests.RequestException, SQLAlchemyError, OSError) as error:
            raise AwayError(_why(error)) from error

    def _do(self, outbox: Outbox, group: list[Operation]) -> None:
        fields = group[0].fields
        if fields["op"] == "create":
            self._create(outbox, fields)
        elif outbox.run is None:
            raise RefusedError(f"{outbox.folder}: says nothing of the run that it belongs to")
        elif fields["op"] == "metrics":
            self._metrics(outbox, [operation.fields for operation in group])
        else:
            _HOW[fields["op"]](self, outbox, fields)

    # ---- runs -----------------------------------------------------------------------------------

    def _create(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        experiment = self._experiments.id_of(fields["experiment"])
        run_id = self._find(experiment, fields["find"])
        if run_id is None:
            tags = dict(fields["tags"])
            if parent := fields.get("parent"):
                tags["mlflow.parentRunId"] = self._parent(experiment, outbox, parent)
            made = self._client.create_run(
                experiment, start_time=fields["time"], tags=tags, run_name=fields["name"]
            )
            run_id = made.info.run_id
        outbox.set_run(Run(run_id, experiment))

    def _find(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        if not tags:
            return None
        terms = [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
        found = self._client.search_runs([experiment], " and ".join(terms), max_results=1)
        return found[0].info.run_id if found else None

    def _parent(self, experiment: str, outbox: Outbox, parent: Mapping[str, str]) -> str:
        """Return the id of the study's run, which was not known when its trial began."""
        known = Outbox(outbox.folder.with_name(parent[tag_keys.STUDY_KEY])).run
        run_id = known.run_id if known else self._find(experiment, parent)
        if run_id is None:
            raise AwayError("the study's own run is not there yet")
        return run_id

    def _reopen(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Set a run RUNNING again, whatever became of it: deleted in the user interface, too."""
        run_id = _run_of(outbox).run_id
        run = self._client.get_run(run_id)
        outbox.set_run(Run(run_id, run.info.experiment_id))
        if run.info.lifecycle_stage == "deleted":
            self._client.restore_run(run_id)
        self._client.update_run(run_id, status=TO_MLFLOW[RUNNING])
        gone = {tag_keys.REASON: None} if tag_keys.REASON in run.data.tags else {}
        self._tags(outbox, {"values": {tag_keys.STATE: RUNNING, **gone}})

    def _end(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        self._client.set_terminated(
            _run_of(outbox).run_id, TO_MLFLOW[fields["state"]], end_time=fields["time"]
        )

    def _view(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        run = _run_of(outbox)
        # Unknown where only the id was noted, and this was to be sent before the run's reopening.
        experiment = run.experiment_id or self._client.get_run(run.run_id).info.experiment_id
        offer_view(self._client, experiment, run.run_id, fields["keys"])

    # ---- what runs hold -------------------------------------------------------------------------

    def _params(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        run_id = _run_of(outbox).run_id
        params = [Param(key, value) for key, value in fields["values"].items()]
        for part in _parts(params, _PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=part)

    def _tags(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        run_id, values = _run_of(outbox).run_id, fields["values"]
        tags = [RunTag(key, value) for key, value in values.items() if value is not None]
        self._client.log_batch(run_id, tags=tags)
        for key in (key for key, value in values.items() if value is None):
            self._client.delete_tag(run_id, key)

    def _inputs(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        parts = [_dataset(part) for part in fields["datasets"]]
        self._client.log_inputs(_run_of(outbox).run_id, datasets=parts)

    def _files(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Upload a folder of the outbox; one that is gone was made again by a later life."""
        folder = outbox.folder / fields["folder"]
        if folder.is_dir():
            self._client.log_artifacts(_run_of(outbox).run_id, str(folder))

    def _text(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        self._client.log_text(_run_of(outbox).run_id, fields["text"], fields["path"])

    def _metrics(self, outbox: Outbox, points: list[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        run_id, has = _run_of(outbox).run_id, self._points(outbox)
        metrics = [
            Metric(key, float(value), fields["time"], fields["step"])
            for fields in points
            for key, value in fields["values"].items()
            if (key, fields["step"]) not in has
        ]
        for part in _parts(metrics, _METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=part)
            has.update(_places(part))

    def _points(self, outbox: Outbox) -> set[tuple[str, int]]:
        """The points that the run has in MLflow: whoever sent before may have died before it
        noted so, and points with another time would be others to MLflow."""
        if outbox.folder not in self._has:
            run_id = _run_of(outbox).run_id
            keys = self._client.get_run(run_id).data.metrics
            histories = (self._client.get_metric_history(run_id, key) for key in keys)
            self._has[outbox.folder] = {place for h in histories for place in _places(h)}
        return self._has[outbox.folder]


_HOW: dict[str, Callable[[Sender, Outbox, Mapping[str, Any]], None]] = {
    "reopen": Sender._reopen,
    "end": Sender._end,
    "view": Sender._view,
    "params": Sender._params,
    "tags": Sender._tags,
    "inputs": Sender._inputs,
    "files": Sender._files,
    "text": Sender._text,
}


def _run_of(outbox: Outbox) -> Run:
    """Return the run of an outbox, which is there once `Sender._do` has let an operation pass."""
    run = outbox.run
    assert run is not None
    return run


def _groups(waiting: Iterable[Operation]) -> Iterator[list[Operation]]:
    """Put neighbouring metrics together, as many as one call takes."""
    group: list[Operation] = []
    size = 0
    for operation in waiting:
        points = len(operation.fields["values"]) if operation.fields["op"] == "metrics" else 0
        if group and (not points or size + points > _METRICS_PER_CALL):
            yield group
            group, size = [], 0
        group.append(operation)
        size += points
        if not points:
            yield group
            group, size = [], 0
    if group:
        yield group


def _parts(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _places(metrics: Iterable[Metric]) -> set[tuple[str, int]]:
    return {(metric.key, metric.step) for metric in metrics}


def _dataset(part: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=part["name"],
        digest=part["digest"],
        source_type="local",
        source=json.dumps({"uri": part["source"]}),
        profile=json.dumps({"num_rows": part["rows"]}),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", part["context"])])


def _why(error: Exception) -> str:
    """Say in a few words why MLflow did not take something."""
    text = clean(str(error)).strip()
    if "Connection refused" in text:
        return "connection refused"
    if "timed out" in text.lower():
        return "it does not answer"
    if found := re.search(r"(?:too many (\d{3}) error responses|error code (\d{3}) )", text):
        return f"it answers {found[1] or found[2]}"
    return text.splitlines()[0][:200] if text else type(error).__name__
