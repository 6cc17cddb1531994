"""The connection to a Ray cluster, and whether its nodes can run our trials."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from minbert import InputError

from ..common.faults import causes
from ..common.masking import clean
from ..common.signals import SIGNALS
from ..storage.urls import is_server
from .ray_task import HOME_ID, NodeContext, Seen, look, machine_id
from .resources import Folders, cores

_HEAD = "node:__internal_head__"
_PATIENCE = 60.0  # seconds for a node to answer: its first process has to start
_REACH = 5.0  # seconds for the head to take a connection
# What a trial heeds of the dispatcher's environment.
_HANDED_ON = ("MLFLOW_", "HF_", "AWS_", "AZURE_", "GOOGLE_", "OMP_WAIT_POLICY", "TOKENIZERS_")
_STORE_MEMORY = 80 << 20  # bytes of shared memory for Ray's objects: ours are some kilobytes


class Cluster:
    """A connection to a Ray cluster: the one at $RAY_ADDRESS, or one that is started here and
    ends with this process.

    Raises:
        InputError: there is no cluster at the address, or it will not have us.
    """

    def __init__(self) -> None:
        self.address = os.environ.get("RAY_ADDRESS") or ""
        if self.address:
            _reach(self.address)
            self._connect(address=self.address)
        else:
            self._connect(address="local", **_own_cluster())

    def _connect(self, **options: Any) -> None:
        try:
            with _signals_kept():
                ray.init(
                    log_to_driver=False, logging_level=logging.ERROR, namespace="mtl", **options
                )
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = f"RAY_ADDRESS={self.address}" if self.address else "a Ray cluster of our own"
            raise InputError(f"{where}: {_why_not(error)}") from error

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        with _signals_kept():
            ray.shutdown()

    def total(self, resource: str) -> float:
        """How much of a resource (``CPU``, ``GPU``) the living nodes have."""
        return ray.cluster_resources().get(resource, 0.0)

    def room(self, cpus: float, gpus: float) -> int:
        """How many trials the living nodes have room for, each with so much."""
        return sum(_room(node["Resources"], cpus, gpus) for node in ray.nodes() if node["Alive"])

    @property
    def head(self) -> Mapping[str, float]:
        """Resources that only the head node has, to place on it what must not be lost."""
        return {_HEAD: 0.001} if ray.cluster_resources().get(_HEAD) else {}

    def check(self, context: NodeContext, tracking_uri: str) -> None:
        """Have every node look whether it can run trials.

        Raises:
            InputError: one cannot, and why.
        """
        for seen in self._look(context):
            if seen.wrong is not None:
                raise InputError(seen.wrong)
            if seen.version != version("mtl"):
                raise InputError(
                    f"Ray node {seen.host} has mtl {seen.version}, and here it is "
                    f"{version('mtl')}: install the same on all"
                )
            if seen.machine != machine_id() and not is_server(tracking_uri):
                raise InputError(
                    f"Ray node {seen.host} is another machine, and MLflow's store is a file of "
                    "this one: set MLFLOW_TRACKING_URI to the address of an MLflow server"
                )

    def _look(self, context: NodeContext) -> Iterator[Seen]:
        task = ray.remote(look)
        asked = {}
        for node in ray.nodes():
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                options = task.options(num_cpus=0, max_retries=0, scheduling_strategy=there)
                asked[options.remote(context)] = node["NodeManagerHostname"]
        for answer, host in asked.items():
            try:
                yield ray.get(answer, timeout=_PATIENCE)
            except RayError as error:
                raise InputError(
                    f"Ray node {host} cannot run mtl: {_first_line(error)}; install the same "
                    "version of mtl there"
                ) from error


def node_context(folders: Folders) -> NodeContext:
    """Describe where trials read and write, for nodes that must see the same."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
    return NodeContext(
        home=str(folders.home),
        home_id=_home_id(folders.home),
        folders=tuple(str(path) for path in folders.inputs),
        folder=os.getcwd(),
        environment=environment | {"TOKENIZERS_PARALLELISM": "false"},
    )


def _home_id(home: Path) -> str:
    """Return the home's random name, given at the first time."""
    file = home / HOME_ID
    if not file.is_file():
        part = home / f"{HOME_ID}.{os.getpid()}"
        part.write_text(secrets.token_hex(8), "utf-8")
        try:
            os.link(part, file)  # unless another was quicker
        except FileExistsError:
            pass
        finally:
            part.unlink()
    return file.read_text("utf-8")


def _room(resources: Mapping[str, float], cpus: float, gpus: float) -> int:
    needed = [(name, each) for name, each in (("CPU", cpus), ("GPU", gpus)) if each]
    return min(int(resources.get(name, 0.0) / each + 1e-9) for name, each in needed)


def _own_cluster() -> dict[str, Any]:
    """Options of a cluster on this machine alone, which nobody else may use."""
    return {
        "num_cpus": cores(),
        "include_dashboard": False,
        "object_store_memory": _STORE_MEMORY,
        "_node_ip_address": "127.0.0.1",
    }


def _reach(address: str) -> None:
    """Find out soon whether anybody is there: Ray itself tries for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # "auto", say
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH).close()
    except OSError as error:
        raise InputError(
            f"RAY_ADDRESS={address}: nobody answers there ({error.strerror or error}); give the "
            "address of a running cluster's head, or unset it for a cluster on this machine"
        ) from None


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our handling of signals, which Ray replaces by its own."""
    try:
        before = {number: signal.getsignal(number) for number in SIGNALS}
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _why_not(error: BaseException) -> str:
    told = " ".join(str(cause) for cause in causes(error))
    token = (
        "the cluster may ask for another token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH to the cluster's"
    )
    if "InvalidAuthToken" in told or "Failed to connect" in told:
        return f"Ray is there and does not let us in; {token}"
    return f"Ray cannot be used: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in clean(str(error)).splitlines() if line.strip()]
    return (lines[-1] if "Error" in "".join(lines[-1:]) else lines[0])[:300] if lines else ""
