"""The compose file and the Dockerfile, as far as they can be tried without a container engine.

Each service's command runs as a process with the environment that its container would have; only
folders, ports and the names of services are those of this machine.

Room: mtl/ui.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from pydantic import BaseModel, ConfigDict, Field

from mtl.cli import study_service
from mtl.doctor.servers import tracking_server
from support.commands import Outcome
from support.paths import REPOSITORY
from support.study_runs import write_study

SERVERS = ("mlflow", "dashboard")
QUOTED = """--set '["sst"]' --as "a b $X *" """


class Part(BaseModel):
    """A table of the compose file; a key that is not known here is a mistake."""

    model_config = ConfigDict(extra="forbid", strict=True)


class HealthCheck(Part):
    test: list[str] = Field(min_length=2)
    interval: str = Field(pattern=r"^\d+[smh]$")
    timeout: str = Field(pattern=r"^\d+[smh]$")
    start_period: str = Field(pattern=r"^\d+[smh]$")
    retries: int


class Depends(Part):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class Build(Part):
    context: str
    args: dict[str, str]


class Deploy(Part):
    mode: Literal["replicated"]
    replicas: int


class Service(Part):
    build: str | Build | None = None
    image: str | None = Field(None, pattern=r"^[\w./-]+:\d[\w.]*$")
    profiles: list[Literal["cluster"]] = []
    init: bool = False
    cap_drop: list[str] = []
    security_opt: list[str]
    command: str | None = None
    shm_size: str | None = None
    deploy: Deploy | None = None
    environment: dict[str, str] = {}
    volumes: list[str] = []
    ports: list[str] = []
    healthcheck: HealthCheck | None = None
    depends_on: dict[str, Depends] = {}
    restart: str = Field(pattern=r"^(no|always|unless-stopped|on-failure(:\d+)?)$")
    stop_grace_period: str = Field("10s", pattern=r"^\d+[smh]$")


class Compose(Part):
    name: str
    services: dict[str, Service]
    volumes: dict[str, None]
    anchor: dict[str, Any] = Field(alias="x-mtl")
    cluster_anchor: dict[str, Any] = Field(alias="x-cluster")
    near_anchor: dict[str, str] = Field(alias="x-near")
    chosen_anchor: dict[str, str] = Field(alias="x-chosen")
    ray_anchor: dict[str, str] = Field(alias="x-ray")

    @property
    def plain(self) -> dict[str, Service]:
        """The services that start without a profile."""
        return {name: each for name, each in self.services.items() if not each.profiles}

    @property
    def ours(self) -> dict[str, Service]:
        """The services of our image."""
        return {name: each for name, each in self.services.items() if each.build}


def interpolated(text: str, given: dict[str, str]) -> str:
    """Fill in ${NAME:-default} and ${NAME-default} as Compose does."""

    def value(match: re.Match) -> str:
        found = given.get(match["name"])
        return match["default"] if found is None or (match["colon"] and not found) else found

    return re.sub(r"\$\{(?P<name>\w+)(?P<colon>:)?-(?P<default>[^}]*)\}", value, text)


def filled(part: Any, given: dict[str, str]) -> Any:
    """A part of the compose file with its variables filled in, which happens after YAML is read."""
    if isinstance(part, dict):
        return {key: filled(value, given) for key, value in part.items()}
    if isinstance(part, list):
        return [filled(value, given) for value in part]
    return interpolated(part, given) if isinstance(part, str) else part


def written() -> dict[str, Any]:
    """The compose file as it is written."""
    return yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))


def compose(**given: str) -> Compose:
    """The compose file as it is understood with these variables in the environment."""
    read = filled(written(), given)
    deploy = read["services"]["ray-worker"]["deploy"]
    deploy["replicas"] = int(deploy["replicas"])  # Compose reads a number in what it has filled in
    return Compose.model_validate(read)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, comments and line breaks undone."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def image_environment() -> dict[str, str]:
    """What the image sets for every container."""
    words = [word for name, rest in instructions() if name == "ENV" for word in shlex.split(rest)]
    return dict(word.split("=", 1) for word in words)


def test_ports_are_published_on_loopback_alone():
    assert compose().plain.keys() == {*SERVERS, "study"}
    for service in compose().services.values():
        for port in service.ports:
            assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    chosen = compose(MLFLOW_PORT="5055").services["mlflow"]
    assert chosen.ports == ["127.0.0.1:5055:5000"]


def test_servers_are_watched_and_come_back():
    services = compose().services
    for name in SERVERS:
        assert services[name].healthcheck is not None
        assert services[name].restart == "unless-stopped"
    study = services["study"]
    assert study.restart.startswith("on-failure:"), "a study that always fails must come to an end"
    assert study.depends_on["mlflow"].condition == "service_healthy"
    assert study.environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"


def test_what_is_recorded_lies_on_named_volumes():
    whole = compose()
    made = {text for name, rest in instructions() if name == "RUN" for text in shlex.split(rest)}
    for mount in whole.services["postgres"].volumes:
        assert mount.partition(":")[0] in whole.volumes
    for service in whole.ours.values():
        for mount in service.volumes:
            volume, folder = mount.split(":")
            assert volume in whole.volumes
            assert folder in made, f"{folder} must be the user's in the image"
    # One SQLite file, one host: the dashboard sees what the study writes.
    assert whole.services["study"].volumes == whole.services["dashboard"].volumes


def test_nothing_runs_as_root_and_nothing_has_a_password():
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users and not users[-1].startswith(("root", "0"))
    for service in compose().services.values():
        assert "no-new-privileges:true" in service.security_opt
    for service in compose().ours.values():
        assert service.cap_drop == ["ALL"]
    for name in ("docker-compose.yml", "Dockerfile"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        # From the environment, without a default.
        given = r'(?i)(password|secret|token)\w*\s*[:=](?! "\$\{\w+-\}"( #.*)?$)'
        assert not re.search(given, text, re.MULTILINE)
    # A command is seen by every user of the host.
    for service in compose(POSTGRES_PASSWORD="hush", RAY_AUTH_TOKEN="hush").services.values():
        assert "hush" not in f"{service.command} {service.healthcheck}"


def test_the_cluster_lets_nobody_in_without_its_token():
    services = compose(RAY_AUTH_TOKEN="a" * 64, POSTGRES_PASSWORD="hush").services
    for name in ("ray-head", "ray-worker", "cluster-study"):
        environment = services[name].environment
        assert environment["RAY_AUTH_MODE"] == "token", name
        assert environment["RAY_AUTH_TOKEN"] == "a" * 64, name
        assert "home:/data/home" in services[name].volumes, "checkpoints lie where all see them"
    known = subprocess.run(
        [Path(sysconfig.get_path("scripts")) / "ray", "start", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("ray-head", "ray-worker"):
        options = re.findall(r" (--[\w-]+)", services[name].command)
        assert all(option in known for option in options), options
    study = services["cluster-study"].environment
    assert study["MTL_STORAGE"].startswith("postgresql+psycopg://postgres:hush@postgres/")
    store = services["cluster-mlflow"].environment["MLFLOW_BACKEND_STORE_URI"]
    assert store.startswith("postgresql+psycopg://postgres:hush@postgres/")
    assert store != study["MTL_STORAGE"], "both have a table alembic_version"


def test_the_image_can_have_the_optional_parts():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for service in compose().ours.values():
        if isinstance(service.build, Build):
            chosen = service.build.args["EXTRAS"].split(",")
            assert {*chosen} <= {*project["optional-dependencies"]}


@pytest.mark.parametrize("given", [{}, {"MTL_STUDY": "my study.toml", "MTL_OPTIONS": QUOTED}])
def test_commands_are_the_same_words_in_every_engine(given: dict[str, str]):
    """Docker Compose fills in variables and then splits; podman-compose the other way round."""
    for name, service in written()["services"].items():
        if "command" in service:
            docker = shlex.split(interpolated(service["command"], given))
            podman = [interpolated(word, given) for word in shlex.split(service["command"])]
            assert docker == podman and all(docker), name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ["lora_sweep"]),
        ({"MTL_STUDY": "pals", "MTL_OPTIONS": " --trials 3 "}, ["pals", "--trials", "3"]),
        ({"MTL_STUDY": "/inputs/my study.toml"}, ["/inputs/my study.toml"]),
        ({"MTL_OPTIONS": QUOTED}, ["lora_sweep", "--set", '["sst"]', "--as", "a b $X *"]),
    ],
)
@pytest.mark.parametrize("service", ["study", "cluster-study"])
def test_which_study_runs_is_chosen_in_the_environment(service: str, given: dict, words: list):
    chosen = compose(**given).services[service]
    python, *module = shlex.split(chosen.command)
    assert [python, *module[:3]] == ["python", "-P", "-m", "mtl.cli.study_service"]
    name, *options = words
    run = ["mtl", "study", "run", name, *module[3:], *options]
    assert study_service.command(module[3:], chosen.environment) == run


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"MTL_OPTIONS": "--set 'pals.tasks"}, ["MTL_OPTIONS", "No closing quotation"]),
        ({"MTL_STUDY": "no such"}, ["no such", "lora_sweep"]),
        ({"MTL_OPTIONS": "--trials ''"}, ["--trials"]),
    ],
)
def test_what_cannot_be_run_is_one_line(tmp_path: Path, given: dict, words: list):
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mtl.cli.study_service"],
        env={**os.environ, "PATH": path, **given},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    Outcome(done.returncode, done.stdout, done.stderr).refused(*words)


def test_a_study_waits_for_what_it_needs(tmp_path: Path):
    """Containers begin in any order, and one that ends with 2 is begun again a few times only."""
    port = free_port()
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    given = {"RAY_ADDRESS": f"ray://127.0.0.1:{port}", "MTL_OPTIONS": "--trials 0"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "mtl.cli.study_service"],
        env={**os.environ, "PATH": path, **given},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == f"waiting for 127.0.0.1:{port}\n"
    with socket.create_server(("127.0.0.1", port)):
        out, err = process.communicate(timeout=200)
    Outcome(process.returncode, out, err).refused("--trials")


def test_what_a_study_needs_is_read_from_its_environment():
    cluster = compose(POSTGRES_PASSWORD="a").services["cluster-study"].environment
    assert study_service.servers(cluster) == [("ray-head", 10001), ("postgres", 5432)]
    assert study_service.servers(compose().services["study"].environment) == []
    for given in ("auto", "sqlite:////home/optuna.db", "http://[bad", ""):
        assert study_service.servers({"RAY_ADDRESS": given}) == [], given
    assert study_service.servers({"RAY_ADDRESS": "head:6379"}) == [("head", 6379)]


def test_no_proxy_stands_between_the_services():
    """Engines hand the proxy of their own configuration to containers."""
    services = compose(NO_PROXY="corp.example").services
    asked = {"localhost", "127.0.0.1", "corp.example"}
    for service in services.values():
        for value in service.environment.values():
            asked |= {*re.findall(r"https?://([\w.-]+)", value)}
    for name in (each for each in services if services[each].build):
        for variable in ("no_proxy", "NO_PROXY"):
            assert asked <= {*services[name].environment[variable].split(",")}, (name, variable)


def test_the_image_has_the_python_that_the_constraints_are_for():
    (image,) = (rest for name, rest in instructions() if name == "FROM")
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", image)[1]
    text = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert f"Python {version}" in text.splitlines()[0]
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert SpecifierSet(re.search(r'requires-python = "(.*)"', project)[1]).contains(version)


def sent(path: str) -> bool:
    """Whether .dockerignore lets a path of the top folder through; the last rule that fits wins."""
    rules = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let = True
    for rule in (rule for rule in rules if rule and not rule.startswith("#")):
        if fnmatch(path, rule.removeprefix("!")):
            let = rule.startswith("!")
    return let


def copied() -> list[str]:
    """What the Dockerfile copies."""
    lists = [shlex.split(rest)[:-1] for name, rest in instructions() if name == "COPY"]
    return [path for paths in lists for path in paths]


def test_all_that_is_copied_is_there_and_is_sent():
    assert {"pyproject.toml", "constraints.txt", "platform", "models", "studies"} <= {*copied()}
    for path in copied():
        assert (REPOSITORY / path).exists() and sent(path), path
    for path in (".mtl", ".git", ".venv", "data", "tests"):
        assert not sent(path)


# ---- the services, as processes -----------------------------------------------------------------


class Containers:
    """The services' commands as processes, in one folder instead of the volumes."""

    def __init__(self, folder: Path, **given: str) -> None:
        self.folder, self.given = folder, given
        self.ports = {"5000": free_port(), "8080": free_port()}
        self.services = compose(**given).services
        self.processes: dict[str, subprocess.Popen] = {}
        for name in ("home", "mlflow"):
            (folder / "data" / name).mkdir(parents=True)

    def here(self, text: str) -> str:
        """A text of the compose file with this machine's folders and ports."""
        for inside, port in self.ports.items():
            text = re.sub(rf"\b{inside}\b", str(port), text)
        return text.replace("/data/", f"{self.folder}/data/")

    def environment(self, name: str) -> dict[str, str]:
        own = image_environment() | self.services[name].environment
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        basic = {"PATH": path, "HOME": str(self.folder), "OMP_NUM_THREADS": "1"}
        if "PYTHONPATH" in os.environ:  # a checkout that is tried without being installed
            basic["PYTHONPATH"] = os.environ["PYTHONPATH"]
        mapped = {key: self.here(value) for key, value in own.items()}
        return basic | {k: v.replace("//mlflow:", "//127.0.0.1:") for k, v in mapped.items()}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def start(self, name: str) -> subprocess.Popen:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                shlex.split(self.here(self.services[name].command)),
                env=self.environment(name),
                cwd=self.folder / "data" / "home",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.processes[name]

    def healthy(self, name: str) -> bool:
        """Run the service's health check once."""
        kind, *words = self.services[name].healthcheck.test
        assert kind == "CMD"
        done = subprocess.run(
            [self.here(word) for word in words],
            env=self.environment(name),
            capture_output=True,
            timeout=60,
        )
        return done.returncode == 0

    def wait_healthy(self, name: str) -> None:
        end = time.monotonic() + 200
        while not self.healthy(name):
            assert self.processes[name].poll() is None, self.log(name)
            assert time.monotonic() < end, self.log(name)
            time.sleep(0.5)

    def stop(self) -> None:
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    file = write_study(tmp_path, epochs=1, steps=2)
    options = "--jobs 1 --trials 1 --set 'train.lr=0.02'"
    found = Containers(tmp_path, MTL_STUDY=str(file), MTL_OPTIONS=options)
    yield found
    found.stop()


def ask(port: int, path: str, body: dict | None = None, method: str = "GET", **headers: str):
    """Return status and text of a request."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **headers}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


@pytest.mark.timeout(600)  # MLflow's first start makes its tables: half a minute on a slow disk
def test_a_study_runs_against_both_servers(containers: Containers, tmp_path: Path):
    assert not containers.healthy("mlflow") and not containers.healthy("dashboard")
    for name in SERVERS:
        containers.start(name)
    for name in SERVERS:
        containers.wait_healthy(name)
    study = containers.start("study")
    assert study.wait(timeout=200) == 0, containers.log("study")

    mlflow, dashboard = containers.ports["5000"], containers.ports["8080"]
    search = ("/api/2.0/mlflow/experiments/search", {"max_results": 9}, "POST")
    status, text = ask(mlflow, *search, Host=f"mlflow:{mlflow}")
    assert status == 200, "the study asks by the service's name"
    (experiment,) = (e for e in json.loads(text)["experiments"] if e["name"] == "tiny")
    assert experiment["artifact_location"].startswith("mlflow-artifacts:")
    assert ask(mlflow, *search, Host="evil.example")[0] == 403
    runs = {"experiment_ids": [experiment["experiment_id"]]}
    text = ask(mlflow, "/api/2.0/mlflow/runs/search", runs, "POST")[1]
    assert [run["info"]["status"] for run in json.loads(text)["runs"]] == ["FINISHED"] * 2
    kept = [file for file in (tmp_path / "data/mlflow/artifacts").rglob("*") if file.is_file()]
    assert any(file.suffix == ".safetensors" for file in kept), "artifacts went to the server"

    studies = json.loads(ask(dashboard, "/api/studies")[1])["study_summaries"]
    assert [study["study_name"] for study in studies] == ["tiny"]
    assert ask(dashboard, f"/api/studies/{studies[0]['study_id']}", method="DELETE")[0] == 403
    assert ask(dashboard, "/api/studies", Host="evil.example")[0] == 403

    check, *_ = tracking_server(f"http://127.0.0.1:{mlflow}")
    assert check.state == "ok" and "MLflow 3." in check.found
    if sys.platform == "linux":  # where all of 127/8 is this machine
        check, *_ = tracking_server(f"http://127.0.0.2:{mlflow}")
        assert check.state == "bad" and "--allowed-hosts" in check.mend
    for name in SERVERS:
        containers.processes[name].terminate()
        assert containers.processes[name].wait(timeout=60) in (0, -signal.SIGTERM)


def test_a_password_closes_the_dashboard_and_leaves_it_healthy(containers: Containers):
    containers.services["dashboard"].environment["MTL_UI_PASSWORD"] = "hush, my dear"
    containers.start("dashboard")
    containers.wait_healthy("dashboard")
    port = containers.ports["8080"]
    assert ask(port, "/api/studies")[0] == 401
    basic = b64encode(b"mtl:hush, my dear").decode()
    assert ask(port, "/api/studies", Authorization=f"Basic {basic}")[0] == 200
    assert ask(port, "/api/studies", Authorization=f"Basic {basic}", Host="evil.example")[0] == 403
    assert "hush" not in containers.log("dashboard")


def test_a_dashboard_that_cannot_start_says_why(tmp_path: Path):
    (tmp_path / "file").touch()
    done = subprocess.run(
        [sys.executable, "-m", "mtl.ui.dashboard_server"],
        env={**os.environ, "MTL_HOME": str(tmp_path / "file" / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("mtl: home") and done.stderr.count("\n") == 1


@pytest.mark.skipif("MTL_TEST_IMAGE" not in os.environ, reason="minutes; set MTL_TEST_IMAGE=1")
@pytest.mark.timeout(3600)
def test_the_dockerfiles_steps_in_an_empty_environment(tmp_path: Path):
    """COPY and RUN in their order; PIP_EXTRA_INDEX_URL is the caller's, as a --build-arg is."""
    source, venv = tmp_path / "src", tmp_path / "venv"
    source.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    env = {**os.environ, "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    ran = 0
    for name, rest in instructions():
        if name == "COPY":
            for path in shlex.split(rest)[:-1]:
                if (REPOSITORY / path).is_dir():
                    shutil.copytree(REPOSITORY / path, source / path, ignore=ignored)
                else:
                    shutil.copy(REPOSITORY / path, source / path)
        elif name == "RUN" and "useradd" not in rest:  # this machine keeps its users
            subprocess.run(["sh", "-c", rest], cwd=source, env=env, check=True)
            ran += 1
    assert ran == 2
    command = [venv / "bin" / "mtl", "study", "list"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "lora_sweep" in done.stdout
