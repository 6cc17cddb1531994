"""Servers: whether the one that is named answers, and whether ports are free for our own."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Iterator

from ..common.http_probe import PATIENCE, Answer, ask
from ..tracking.artifact_places import serves, why_unreachable
from ..tracking.refusals import HOSTS
from .checks import Check, bad, note, ok, said

_UNSET = "start it, or put MLFLOW_TRACKING_URI right; unset, MLflow's store is in the home"
_SEARCH = "/api/2.0/mlflow/experiments/search"


def tracking_server(url: str) -> Iterator[Check]:
    """Ask an MLflow server for its health, and for an experiment as a study will."""
    name = "mlflow server"
    try:
        health = ask(url, "/health")
        if health.status in (200, 401, 403):
            health = ask(url, _SEARCH, {"max_results": 1})
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {PATIENCE:.0f} s"
        yield bad(name, f"{url} cannot be reached: {reason}", _UNSET)
        return
    judged = _judged(name, url, health)
    yield judged
    if judged.state == "ok":
        yield from _artifacts(url)


def _artifacts(url: str) -> Iterator[Check]:
    """Say whether files can be put where the server says, going by its newest experiment."""
    name = "mlflow artifacts"
    newest = {"max_results": 1, "order_by": ["creation_time DESC"]}
    found = json.loads(ask(url, _SEARCH, newest).text).get("experiments") or []
    location = found[0]["artifact_location"] if found else ""
    wrong = why_unreachable(url, location) if location else None
    if wrong is not None:
        yield bad(name, f"cannot be put where the server says: {wrong.reason}", wrong.mend)
    elif serves(url):
        yield ok(name, "the server takes them")
    else:
        yield ok(name, f"go to {location}, not by way of the server")


def _judged(name: str, url: str, found: Answer) -> Check:
    if found.status == 200 and found.text.lstrip().startswith("{"):
        return ok(name, f"{url} answers (MLflow {_version(url)})")
    if found.status == 401 or (found.status == 403 and "Host" not in found.text):
        mend = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        return bad(name, f"{url} asks for a login, or refuses the one given", mend)
    if found.status == 403:
        return bad(name, f"{url} refuses to be called by that name", HOSTS)
    return bad(name, f"{url} answers {found.status}, but not as MLflow does", _UNSET)


def _version(url: str) -> str:
    try:
        answer = ask(url, "/version")
    except (OSError, ValueError, http.client.HTTPException):
        return "of unknown version"
    text = answer.text.strip()
    return text if answer.status == 200 and len(text) < 30 else "of unknown version"


def port_free(option: str, port: int) -> Iterator[Check]:
    """Say whether ``mtl ui`` can have a port of this machine, and else who answers there."""
    name, mend = f"port {port}", f"mtl ui {option} 0 takes any free port"
    with socket.socket() as probe:
        # As the servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            reason = _who(f"http://127.0.0.1:{port}") if taken else error.strerror
            yield note(name, reason or said(error), mend)
            return
    yield ok(name, "free")


def _who(url: str) -> str:
    """Say who answers at an address of this machine."""
    try:
        health = ask(url, "/health")
        if health == Answer(200, "OK"):
            return f"taken: MLflow {_version(url)} answers there"
        if health.status == 401:
            return "taken: something that asks for a password answers there"
        board = ask(url, "/api/studies")
        if "study_summaries" in board.text:
            return "taken: an Optuna dashboard answers there"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"taken: something that does not speak HTTP ({said(error, 80)})"
    return "taken: something else answers there"
