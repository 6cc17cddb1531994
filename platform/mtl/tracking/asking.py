"""Asking an MLflow server before anything runs: is it one, does it let us in, where do files go?"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
from typing import TYPE_CHECKING

from minbert.errors import InputError

from ..common.http_probe import ask
from ..common.masking import masked

if TYPE_CHECKING:
    from ..storage.home import Home


def ask_server(home: Home, experiment: str) -> None:
    """Have a server find or make an experiment, so that what would keep everything waiting is known
    before work begins. One that is away is not waited for: it may be back before the work ends.

    Raises:
        InputError: somebody must put something right first; the line says what.
    """
    if not home.mlflow_is_server or _is_away(home.mlflow_uri):
        return
    from .experiments import Experiments
    from .refusals import AwayError, judged
    from .store import connect

    try:
        client = connect(home.mlflow_uri, home.mlflow_artifacts)
        Experiments(client, home.mlflow_uri, home.mlflow_artifacts).id_of(experiment)
    except Exception as error:
        found = judged(error, home.path)
        if not isinstance(found, AwayError):
            raise InputError(f"MLflow's server {masked(home.mlflow_uri)}: {found}") from error


def _is_away(uri: str) -> bool:
    try:
        ask(uri, "/health")
    except urllib.error.URLError as error:
        return not isinstance(error.reason, ssl.SSLError)  # which its client judges for itself
    except (OSError, ValueError, http.client.HTTPException):
        return True
    return False
