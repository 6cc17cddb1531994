"""What each operation of an outbox is in calls of MLflow's client.

Every operation can be sent again without harm, since a process may die between a call and the
note that it was made: runs are found by their tags before they are created, points that a run has
are left out, and the rest overwrites what is the same.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.urls import file_path
from ..trials.states import RUNNING, TO_MLFLOW
from . import limits, tag_keys
from .experiments import Experiments
from .limits import cut
from .outbox import Operation, Outbox, Run
from .refusals import AwayError, RefusedError
from .runs_view import offer_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

PARAMS_PER_CALL = 100  # MLflow's limits
METRICS_PER_CALL = 1000
_PARENT = "mlflow.parentRunId"


class Operations:
    """Does what outboxes say, in one MLflow store.

    Args:
        say: is told what a person should know: what was found otherwise than it was left.
    """

    def __init__(
        self, client: MlflowClient, experiments: Experiments, say: Callable[[str], None]
    ) -> None:
        self._client, self._experiments, self._say = client, experiments, say
        self._has: dict[Path, set[tuple[str, int]]] = {}  # points of runs, asked once a process

    def do(self, outbox: Outbox, group: list[Operation]) -> None:
        """Do one operation, or neighbouring ones that are all metrics.

        Raises:
            RefusedError: the outbox does not say which run is meant. Besides, what MLflow's
                client raises.
        """
        fields = group[0].fields
        if fields["op"] == "create":
            if outbox.run is None:  # else it is there, and this says what it is if it gets lost
                self._create(outbox, fields)
        elif outbox.run is None:
            raise RefusedError(f"{outbox.folder}: says nothing of the run that it belongs to")
        elif fields.get("anew") and not outbox.former:
            return  # only for a run that was made anew
        elif fields["op"] == "metrics":
            self._metrics(outbox, [operation.fields for operation in group])
        else:
            _HOW[fields["op"]](self, outbox, fields)

    def forget(self, outbox: Outbox) -> None:
        """Drop what is remembered of a run's points."""
        self._has.pop(outbox.folder, None)

    # ---- runs -----------------------------------------------------------------------------------

    def _create(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        tags = dict(fields["tags"])
        experiment, parent = self._place(outbox, fields)
        run_id = self._find(experiment, fields["find"])
        if parent is not None:
            tags[_PARENT] = parent
        if run_id is None:
            made = self._client.create_run(
                experiment,
                start_time=fields["time"],
                tags=_fitting(tags),
                run_name=cut(fields["name"], limits.RUN_NAME),
            )
            run_id = made.info.run_id
        elif parent is not None:
            self._client.set_tag(run_id, _PARENT, parent)
        outbox.set_run(Run(run_id, experiment))

    def _place(self, outbox: Outbox, fields: Mapping[str, Any]) -> tuple[str, str | None]:
        """Return the experiment that a run belongs to, and the run of its study.

        A trial's run goes where its study's is, whatever the experiment is called by now.
        """
        tags, name = fields["tags"], fields["experiment"]
        if tags.get(tag_keys.KIND) != "trial" or tag_keys.STUDY_KEY not in tags:
            return self._experiments.id_of(name), None
        study = Outbox(outbox.folder.with_name(tags[tag_keys.STUDY_KEY]))
        if study.run is not None:
            run_id, experiment = study.run[:2]
            return experiment or self._client.get_run(run_id).info.experiment_id, run_id
        if study.begun:
            raise AwayError("the study's own run is not there yet", answers=True)
        experiment = self._experiments.id_of(name)
        found = self._find(
            experiment,
            {tag_keys.STUDY_KEY: tags[tag_keys.STUDY_KEY], tag_keys.KIND: "study"},
        )
        return experiment, found or tags.get(_PARENT)

    def _parent(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Put a run below its study's, which was made anew."""
        create = next(outbox.operations()).fields
        experiment, parent = self._place(outbox, create)
        self._client.set_tag(run_of(outbox).run_id, _PARENT, parent)
        outbox.set_run(Run(run_of(outbox).run_id, experiment))

    def _find(self, experiment: str, tags: Mapping[str, str]) -> str | None:
        """Return the run that has these tags, a deleted one too; one that is there first."""
        from mlflow.entities import ViewType

        if not tags:
            return None
        asked = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        runs = self._client.search_runs([experiment], asked, ViewType.ALL, max_results=10)
        found = sorted(runs, key=lambda run: run.info.lifecycle_stage)  # active, deleted
        if found and found[0].info.lifecycle_stage == "deleted":
            self._client.restore_run(found[0].info.run_id)
        return found[0].info.run_id if found else None

    def _reopen(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Set a run RUNNING again, whatever became of it: deleted in the user interface, too."""
        run_id = run_of(outbox).run_id
        run = self._client.get_run(run_id)
        outbox.set_run(Run(run_id, run.info.experiment_id))
        if run.info.lifecycle_stage == "deleted":
            self._experiments.restore(run.info.experiment_id)
            self._client.restore_run(run_id)
        self._client.update_run(run_id, status=TO_MLFLOW[RUNNING])
        gone = {tag_keys.REASON: None} if tag_keys.REASON in run.data.tags else {}
        self._tags(outbox, {"values": {tag_keys.STATE: RUNNING, **gone}})

    def _end(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        self._client.set_terminated(
            run_of(outbox).run_id, TO_MLFLOW[fields["state"]], end_time=fields["time"]
        )

    def _view(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        run = run_of(outbox)
        # Unknown where only the id was noted, and this was to be sent before the run's reopening.
        experiment = run.experiment_id or self._client.get_run(run.run_id).info.experiment_id
        offer_view(self._client, experiment, run.run_id, fields["keys"])

    # ---- what runs hold -------------------------------------------------------------------------

    def _params(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        values = {key: cut(value, limits.PARAM_VALUE) for key, value in fields["values"].items()}
        run_id = run_of(outbox).run_id
        try:
            self._log_params(run_id, values)
        except MlflowException as error:
            if "Changing param values is not allowed" not in str(error):
                raise
            there = self._client.get_run(run_id).data.params
            other = sorted(key for key in values if there.get(key, values[key]) != values[key])
            self._say(
                f"run {run_id} has other values of {', '.join(other)} in MLflow, which lets none "
                "be changed: they stay as somebody else logged them"
            )
            self._log_params(run_id, {k: v for k, v in values.items() if k not in there})

    def _log_params(self, run_id: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for part in _parts([Param(*pair) for pair in values.items()], PARAMS_PER_CALL):
            self._client.log_batch(run_id, params=part)

    def _tags(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag
        from mlflow.exceptions import MlflowException

        run_id, values = run_of(outbox).run_id, fields["values"]
        kept = _fitting({key: value for key, value in values.items() if value is not None})
        self._client.log_batch(run_id, tags=[RunTag(*pair) for pair in kept.items()])
        for key in values.keys() - kept.keys():
            try:
                self._client.delete_tag(run_id, key)
            except MlflowException as error:
                if "No tag with name" not in str(error):  # somebody was quicker
                    raise

    def _inputs(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        parts = [_dataset(part) for part in fields["datasets"]]
        self._client.log_inputs(run_of(outbox).run_id, datasets=parts)

    def _files(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Upload a folder of the outbox; one that is gone was made again by a later life."""
        folder = outbox.folder / fields["folder"]
        if folder.is_dir():
            self._client.log_artifacts(self._reachable(outbox), str(folder))

    def _reachable(self, outbox: Outbox) -> str:
        """Return the id of a run whose artifacts can be put where they belong."""
        run = run_of(outbox)
        if run.experiment_id is not None:
            self._experiments.refuse_unreachable(run.experiment_id)
        return run.run_id

    def _adopt(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        """Give a run that was made anew the files of the one that it stands for. Where both lie on
        this machine they are the same files, not copies."""
        run_id, source = run_of(outbox).run_id, Path(fields["folder"])
        if not source.is_dir() or self._client.list_artifacts(run_id):
            return
        target = file_path(self._client.get_run(run_id).info.artifact_uri)
        if target is None:
            self._client.log_artifacts(run_id, str(source))
        else:
            shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)

    def _text(self, outbox: Outbox, fields: Mapping[str, Any]) -> None:
        self._client.log_text(self._reachable(outbox), fields["text"], fields["path"])

    def _metrics(self, outbox: Outbox, points: list[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        run_id, has = run_of(outbox).run_id, self._points(outbox)
        metrics = [
            Metric(key, float(value), fields["time"], fields["step"])
            for fields in points
            for key, value in fields["values"].items()
            if (key, fields["step"]) not in has
        ]
        for part in _parts(metrics, METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=part)
            has.update(_places(part))

    def _points(self, outbox: Outbox) -> set[tuple[str, int]]:
        """The points that the run has in MLflow: whoever sent before may have died before it
        noted so, and points with another time would be others to MLflow."""
        if outbox.folder not in self._has:
            run_id = run_of(outbox).run_id
            keys = self._client.get_run(run_id).data.metrics
            histories = (self._client.get_metric_history(run_id, key) for key in keys)
            self._has[outbox.folder] = {place for h in histories for place in _places(h)}
        return self._has[outbox.folder]


_HOW: dict[str, Callable[[Operations, Outbox, Mapping[str, Any]], None]] = {
    "reopen": Operations._reopen,
    "parent": Operations._parent,
    "end": Operations._end,
    "view": Operations._view,
    "params": Operations._params,
    "tags": Operations._tags,
    "inputs": Operations._inputs,
    "files": Operations._files,
    "adopt": Operations._adopt,
    "text": Operations._text,
}


def run_of(outbox: Outbox) -> Run:
    """Return the run of an outbox, which is there once `Operations.do` let an operation pass."""
    run = outbox.run
    assert run is not None
    return run


def _fitting(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: cut(value, limits.TAG_VALUE) for key, value in tags.items()}


def _parts(items: list, size: int) -> Iterator[list]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _places(metrics: Iterable[Metric]) -> set[tuple[str, int]]:
    return {(metric.key, metric.step) for metric in metrics}


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links; or it is there from a try before
        shutil.copy2(source, target)


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
