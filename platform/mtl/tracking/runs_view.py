"""How MLflow's list of runs looks when one comes to a study: its columns, their order, the sorting.

MLflow keeps a view that was shared as a tag of the experiment, and shows it to who follows a link
with its name. A new experiment has no such columns: without this, a study is one closed line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import metric_keys

if TYPE_CHECKING:
    from mlflow import MlflowClient

_NAME = "mtl"
_WIDTH = 150  # pixels: as wide as the names
_METRICS = (*map(metric_keys.final, metric_keys.SCORES), metric_keys.TRAINABLE)
_METRICS += (metric_keys.TRAIN_SECONDS,)
SIDEBAR = "workflowType=machine_learning"  # else that of language models' traces
_KIND = {"mlflow.experimentKind": "custom_model_development"}


def offer_view(client: MlflowClient, experiment: str, study_run: str, keys: Sequence[str]) -> None:
    """Put the view of a study's runs on its experiment: trials by score, best first.

    Args:
        study_run: the parent run, which is unfolded.
        keys: configuration keys that tell the trials apart.
    """
    columns = [f"metrics.`{name}`" for name in _METRICS] + [f"params.`{key}`" for key in keys]
    state = {
        "searchFilter": "",
        "orderByKey": f"metrics.`{_METRICS[0]}`",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, _WIDTH),
        "runsExpanded": {study_run: True},
    }
    tags = {**_KIND, f"mlflow.sharedViewState.{_NAME}": json.dumps(state)}
    for key, value in tags.items():
        client.set_experiment_tag(experiment, key, value)


def view_path(experiment: str) -> str:
    """Return the address of that view, from the server's root."""
    return f"/#/experiments/{experiment}/runs?{SIDEBAR}&viewStateShareKey={_NAME}"


def run_path(experiment: str, run_id: str) -> str:
    """Return the address of a run, from the server's root."""
    return f"/#/experiments/{experiment}/runs/{run_id}?{SIDEBAR}"
