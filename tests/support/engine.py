"""A container engine and its compose, over one project of docker-compose.yml."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import yaml

from .paths import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"


class Broken(Exception):
    """Something is not as it should be; the text says what."""


def found_compose() -> str:
    """Return the command of the compose that is installed.

    Raises:
        Broken: there is none.
    """
    if shutil.which("docker"):
        return "docker compose"
    if shutil.which("podman") and shutil.which("podman-compose"):
        return "podman-compose"
    raise Broken("neither docker nor podman with podman-compose is on the PATH")


class Project:
    """The services of docker-compose.yml under a project's name of its own.

    Args:
        compose: the command, with options that come before everything else.
        name: of the project; its containers and volumes are told by it.
        override: what is changed in the compose file, as its own text would say it.
        folder: where the changes are written.
        profile: of the services to start; None is those without one.
    """

    def __init__(
        self, compose: str, name: str, override: dict, folder: Path, profile: str | None = None
    ) -> None:
        self.name, self.folder, self.profile = name, folder, profile
        self._compose = shlex.split(compose)
        self.engine = "docker" if self._compose[0] == "docker" else "podman"
        self._override = folder / "override.json"  # JSON is YAML
        self.change(override)
        self.environment: dict[str, str] = {}

    def change(self, override: dict) -> None:
        """Change other things in the compose file from the next command on."""
        self._override.write_text(json.dumps(override), encoding="utf-8")

    def compose(self, *words: str, needed: bool = True, **given: str) -> str:
        """Run a command of compose; return what it prints."""
        profile = ["--profile", self.profile] if self.profile else []
        files = ["-f", str(FILE), "-f", str(self._override)]
        return self._run([*self._compose, "-p", self.name, *files, *profile, *words], needed, given)

    def run(self, *words: str, needed: bool = True) -> str:
        """Run a command of the engine; return what it prints."""
        return self._run([self.engine, *words], needed, {})

    def _run(self, command: list[str], needed: bool, given: dict[str, str]) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **self.environment, **given},
            cwd=REPOSITORY,
            timeout=1800,
        )
        if needed and done.returncode:
            raise Broken(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout + done.stderr

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's containers, running or not, in order."""
        labels = {"project": self.name, "service": service}
        prefix = "--filter=label=com.docker.compose"
        filters = [f"{prefix}.{key}={value}" for key, value in labels.items()]
        return sorted(self.run("ps", "-a", *filters, "--format", "{{.Names}}").split())

    def container(self, service: str) -> str:
        """Return the name of a service's only container."""
        (name,) = self.containers(service)
        return name

    def state(self, container: str) -> dict:
        """Return a container's state: Running, ExitCode, ..."""
        return json.loads(self.run("inspect", "--format", "{{json .State}}", container))

    def log(self, container: str) -> str:
        """Return what a container has printed, in all its lives."""
        return self.run("logs", container, needed=False)

    def inside(self, container: str, *words: str, needed: bool = True) -> str:
        """Run a command in a running container."""
        return self.run("exec", container, *words, needed=needed)

    def healthy(self, service: str) -> bool:
        """Run the health check of the compose file in a service's container, once: engines that
        need systemd for it do not do it by themselves."""
        written = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"][service]
        _, *words = written["healthcheck"]["test"]
        command = [self.engine, "exec", self.container(service), *words]
        return subprocess.run(command, capture_output=True, timeout=120).returncode == 0

    def kill_inside(self, container: str, words: str) -> None:
        """kill -9 the first process in a container whose command line holds these words: what the
        kernel does where memory is short, and what the restart policy is for."""
        script = (
            "import os, pathlib as p; print(min(int(f.parent.name) for f in p.Path('/proc').glob("
            "'[0-9]*/cmdline') if f.parent.name not in ('1', str(os.getpid())) and "
            f"{words!r} in f.read_bytes().replace(bytes(1), b' ').decode()))"
        )
        number = self.inside(container, "python", "-c", script).split()[-1]
        # The container may end before the engine hears how the command did.
        self.inside(container, "python", "-c", f"import os; os.kill({number}, 9)", needed=False)


def wait_until(what: str, condition: Callable[[], object], seconds: float = 600.0) -> None:
    """Wait until a condition holds.

    Raises:
        Broken: it does not, for so long.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Broken(f"waited {seconds:.0f} s for: {what}")
        time.sleep(0.5)


def ask(url: str, body: dict | None = None, login: str = "") -> tuple[int, str]:
    """Ask a server that is published on this machine; return status and text."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    if login:
        request.add_header("Authorization", f"Basic {b64encode(login.encode()).decode()}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
