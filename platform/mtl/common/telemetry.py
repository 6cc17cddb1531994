"""Libraries that would report their use to their makers are asked not to.

MLflow fetches a configuration from its makers' server and then sends what was called, with the
version, the machine's kind and an installation's id; its pages send clicks through the server.
Hugging Face's hub client puts versions into its requests, Ray sends a cluster's sizes. Optuna and
its dashboard send nothing. All of them read the environment once, when they are imported.
"""

from __future__ import annotations

import os

OFF = {
    "DO_NOT_TRACK": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def turn_off() -> None:
    """Set what is not set yet, for this process and those that it starts."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
