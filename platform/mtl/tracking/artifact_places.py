"""Where an MLflow server has artifacts put, and whether that can be reached from here.

A server tells its clients where the artifacts of an experiment go. Either it takes them itself, or
it names a place that they are to write to: a folder of its own disk, a bucket. The place is an
experiment's from its creation on, whatever the server is started with later.
"""

from __future__ import annotations

import http.client
import os
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import psutil

from ..common.http_probe import Answer, ask
from ..storage.urls import file_path

SERVE = "start it without --no-serve-artifacts: mlflow server --artifacts-destination FOLDER"
_PROBE = "/api/2.0/mlflow-artifacts/artifacts?path=mtl"
# The libraries by which MLflow's client writes to a place, by its scheme: module and package.
_LIBRARIES = {
    "s3": ("boto3", "boto3"),
    "gs": ("google.cloud.storage", "google-cloud-storage"),
    "wasb": ("azure.storage.blob", "azure-storage-blob"),
    "wasbs": ("azure.storage.blob", "azure-storage-blob"),
    "abfss": ("azure.storage.filedatalake", "azure-storage-file-datalake"),
    "hdfs": ("pyarrow", "pyarrow"),
    "viewfs": ("pyarrow", "pyarrow"),
    "sftp": ("pysftp", "pysftp"),
}


class Unreachable(NamedTuple):
    """Why artifacts cannot be put where a server says.

    Attributes:
        mend: what to do about it.
    """

    reason: str
    mend: str


def why_unreachable(uri: str, location: str) -> Unreachable | None:
    """Say why artifacts cannot be put to a location that a server named; None if they can.

    Args:
        uri: the server's address.
    """
    folder = file_path(location)
    if folder is not None:
        return _why_no_folder(folder, here=_is_this_machine(urlsplit(uri).hostname or ""))
    scheme = urlsplit(location).scheme
    if scheme == "mlflow-artifacts":
        off = serves(uri) is False
        return Unreachable("the server is to take them, and does not", SERVE) if off else None
    module, package = _LIBRARIES.get(scheme, ("", ""))
    if module and not _is_there(module):
        lacking = f"{location}, for which {package} is not installed here"
        return Unreachable(lacking, f"pip install {package}")
    return None


def _why_no_folder(folder: Path, here: bool) -> Unreachable | None:
    """Say why a server's folder cannot be written from here.

    Args:
        here: the server runs on this machine, so folders may be made. On another it must be seen
            here, too, as shared ones are.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not (here or there in (folder, folder.parent)):
        return Unreachable(f"{folder}, a folder of the server's own disk, is not here", SERVE)
    if not os.access(there, os.W_OK | os.X_OK):
        return Unreachable(f"{folder}, a folder of the server's own disk, cannot be written", SERVE)
    return None


def _is_this_machine(host: str) -> bool:
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    own = {address.address for found in psutil.net_if_addrs().values() for address in found}
    return any(address in own or address.startswith("127.") for address in addresses)


def serves(uri: str) -> bool | None:
    """Say whether a server takes artifacts and hands them on; None where it cannot be asked."""
    try:
        answer = ask(uri, _PROBE)
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return not _is_off(answer)


def _is_off(answer: Answer) -> bool:
    return answer.status == 503 and "no-serve-artifacts" in answer.text


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False
