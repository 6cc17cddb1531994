"""The study of docker-compose.yml: ``python -m mtl.cli.study_service``, ``mtl study run`` by what
MTL_STUDY and MTL_OPTIONS say.

It waits until what it needs takes connections: after a reboot, or the restart of a server in the
middle of a study, containers begin in any order, and an engine begins one again a few times only.

They come as variables and are taken apart here: Docker Compose splits a command into words after it
has filled in variables, podman-compose before, so that an option with its value would be one word
there and a variable without a value an empty one.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from minbert.errors import InputError

STUDY_VARIABLE, OPTIONS_VARIABLE = "MTL_STUDY", "MTL_OPTIONS"
_STUDY = "lora_sweep"
_SERVERS = {"RAY_ADDRESS": None, "MTL_STORAGE": 5432}  # and the port where none is named
_PATIENCE = 180.0  # seconds for all of them together


def command(given: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the words of ``mtl study run``: the study, the given options, then those of
    MTL_OPTIONS, which are quoted as in a shell; nothing in them is expanded.

    Raises:
        InputError: a quotation in MTL_OPTIONS is not closed.
    """
    study = environment.get(STUDY_VARIABLE, "").strip() or _STUDY
    try:
        options = shlex.split(environment.get(OPTIONS_VARIABLE, ""))
    except ValueError as error:
        raise InputError(
            f"{OPTIONS_VARIABLE} cannot be split into words: {error}; quote as in a shell, "
            """--set 'pals.tasks=["sst"]'"""
        ) from None
    return ["mtl", "study", "run", study, *given, *options]


def servers(environment: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return host and port of each server that a study cannot begin without, of those that the
    environment names. MLflow is none: what is recorded waits for it."""
    found = []
    for variable, usual in _SERVERS.items():
        given = environment.get(variable, "")
        try:
            parts = urlsplit(given if "://" in given else f"//{given}")
            host, port = parts.hostname, parts.port or usual
        except ValueError:  # for the command to refuse
            continue
        if host and port:
            found.append((host, port))
    return found


def wait_for(places: Sequence[tuple[str, int]], seconds: float = _PATIENCE) -> None:
    """Wait until servers take connections, no longer: the command says what is wrong then."""
    deadline = time.monotonic() + seconds
    for host, port in places:
        said = False
        while not _takes_connections(host, port) and time.monotonic() < deadline:
            if not said:
                print(f"waiting for {host}:{port}", flush=True)
                said = True
            time.sleep(1)


def _takes_connections(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def main() -> int:
    """Become ``mtl study run``, which gets this process' signals then; return 2 for bad input."""
    try:
        words = command(sys.argv[1:], os.environ)
        wait_for(servers(os.environ))
        os.execvp(words[0], words)
    except (InputError, OSError) as error:
        print(f"mtl: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
