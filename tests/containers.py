"""docker-compose.yml, run for real: `python tests/containers.py`, or `make containers`.

Starts the services in containers, with volumes of their own, and runs small studies on the demo
through stops, kills and restarts. Prints a line for each thing that holds, and ends with 1 at the
first that does not, with the logs. Needs docker, or podman and podman-compose, and some ten minutes
of two cores; it builds the image first, unless `--image` names one.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from support.engine import Broken, Project, ask, found_compose, wait_until

OURS = ("mlflow", "dashboard", "study")
CLUSTER = ("cluster-mlflow", "ray-head", "ray-worker", "cluster-study")
EPOCHS = 4
SERVERS = ("mlflow", "dashboard")
PLAIN_PARTS = ("whole", "stopped", "killed", "password", "volumes")
CLUSTER_PARTS = ("cluster", "head", "dispatcher")
PARTS = (*PLAIN_PARTS, *CLUSTER_PARTS)


def _study(mode: str, epochs: int, steps: int, more: str = "") -> str:
    """Return a study file of two points."""
    return f"""
sampler = "points"
pruner = "none"
trials = 2
[config]
backbone = "demo"
"data.path" = "demo"
"train.mode" = "{mode}"
"train.epochs" = {epochs}
"train.steps_per_epoch" = {steps}
{more}
[[points]]
"train.lr" = 1e-4
[[points]]
"train.lr" = 1e-3
"""


_SHORT = _study("full-model", 1, 2, '"pals.kind" = "low-rank"')
_LONG = _study("last-linear-layer", EPOCHS, 240)  # to be stopped in its midst


class Check:
    """What is tried of the compose file."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        inputs = folder / "inputs"
        inputs.mkdir()
        (inputs / "short study.toml").write_text(_SHORT, encoding="utf-8")
        (inputs / "long.toml").write_text(_LONG, encoding="utf-8")
        for path in (folder, inputs):
            path.chmod(0o755)  # the containers' user reads it
        self.mlflow = f"http://127.0.0.1:{options.mlflow_port}"
        self.dashboard = f"http://127.0.0.1:{options.dashboard_port}"
        self.project = self._project("mtl-check-plain")
        self.scores: dict[str, float] = {}

    def _project(self, name: str, profile: str | None = None) -> Project:
        project = Project(self.options.compose, name, self._override(), self.folder, profile)
        project.environment = {
            "MLFLOW_PORT": str(self.options.mlflow_port),
            "DASHBOARD_PORT": str(self.options.dashboard_port),
            "POSTGRES_PASSWORD": secrets.token_hex(16),
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "MTL_STUDY": "/inputs/long.toml",
            "MTL_OPTIONS": "",
        }
        return project

    def _override(self) -> dict[str, Any]:
        inputs = {"volumes": [f"{self.folder}/inputs:/inputs:ro"]}
        changed: dict[str, dict] = {name: {} for name in (*OURS, *CLUSTER)}
        for name in ("study", "cluster-study", "ray-worker", "ray-head"):
            changed[name] |= inputs
        if self.options.image:
            changed = {name: part | {"image": self.options.image} for name, part in changed.items()}
        if self.options.postgres_image:
            changed["postgres"] = {"image": self.options.postgres_image}
        return {"services": changed}

    # ---- words ----------------------------------------------------------------------------------

    def holds(self, what: str, condition: object) -> None:
        """Say that something holds.

        Raises:
            Broken: it does not.
        """
        if not condition:
            raise Broken(what)
        print(f"ok  {what}", flush=True)

    def up(self, *services: str) -> None:
        self.project.compose("up", "-d", "--no-build", *services)

    def begin(self, service: str, study: str, options: str) -> str:
        """Start a study in a new container; return the container's name."""
        for container in self.project.containers(service):
            self.project.run("rm", "-f", container)
        self.project.environment |= {"MTL_STUDY": study, "MTL_OPTIONS": options}
        self.up(service)
        return self.project.container(service)

    def wait_said(self, container: str, words: str, times: int = 1) -> None:
        wait_until(
            f"{container} says {words!r}", lambda: self._said(container).count(words) >= times
        )

    def _said(self, container: str) -> str:
        """What a study has said; it must not have given up."""
        said = self.project.log(container)
        if "Traceback" in said or "fault of mtl" in said:
            raise Broken(f"{container} fails")
        return said

    def wait_ended(self, container: str) -> int:
        """Wait until a container has ended and is not begun again; return its exit code."""

        def ended() -> bool:
            state = self.project.state(container)
            over = not state["Running"] and state["Status"] in ("exited", "stopped")
            return over and (state["ExitCode"] == 0 or self._said(container).count("mtl: ") > 5)

        wait_until(f"{container} has ended", ended, 1200)
        return self.project.state(container)["ExitCode"]

    def recorded(self, study: str, trials: int, epochs: int) -> dict[str, float]:
        """Return the scores of a study's trials; it must be whole, in MLflow."""
        self._sent(study)
        api = f"{self.mlflow}/api/2.0/mlflow"
        status, text = ask(f"{api}/experiments/get-by-name?experiment_name={study}")
        if status != 200:
            raise Broken(f"MLflow answers {status} for the experiment {study}: {text}")
        experiment = json.loads(text)["experiment"]["experiment_id"]
        text = ask(f"{api}/runs/search", {"experiment_ids": [experiment]})[1]
        runs = json.loads(text)["runs"]
        states = [run["info"]["status"] for run in runs]
        self.holds(
            f"MLflow has {study} with {trials} trials, all finished",
            states == ["FINISHED"] * (trials + 1),
        )
        scores = {}
        for run in runs:
            tags = {tag["key"]: tag["value"] for tag in run["data"]["tags"]}
            if tags["mtl.kind"] == "trial":
                scores[tags["mtl.trial"]] = self._score(api, run["info"]["run_id"], epochs)
        return scores

    def _sent(self, study: str) -> None:
        """Have what waits for a server that was away sent, as the study has said."""
        kind = "cluster-" if self.project.profile else ""
        name = f"{kind}mlflow"
        wait_until(f"{name} is healthy", lambda: self.project.healthy(name))
        last = self._said(self.project.container(f"{kind}study"))[-2000:]
        if f"mtl study sync {study}" in last:
            self.project.compose("run", "--rm", f"{kind}study", "mtl", "study", "sync", study)

    def _score(self, api: str, run: str, epochs: int) -> float:
        query = f"run_id={run}&metric_key=dev/score"
        points = json.loads(ask(f"{api}/metrics/get-history?{query}")[1])["metrics"]
        steps = [point["step"] for point in points]
        if len(steps) != epochs or len({*steps}) != epochs:
            raise Broken(f"run {run} has dev/score at {steps}, not {epochs} evaluations")
        return points[-1]["value"]

    # ---- the plain services ---------------------------------------------------------------------

    def whole(self) -> None:
        """A study to its end, with options that need quotes."""
        self._servers()
        for name in SERVERS:
            user = self.project.inside(self.project.container(name), "id", "-u").split()[-1]
            self.holds(f"{name} is healthy, as user {user}", user == "10001")
        options = """--jobs 1 --as "first" --set 'pals.tasks=["sst"]'"""
        study = self.begin("study", "/inputs/short study.toml", options)
        self.holds(f"a study ends with 0, with {options}", self.wait_ended(study) == 0)
        self.recorded("first", 2, 1)
        shown = ask(f"{self.dashboard}/api/studies")[1]
        self.holds("the dashboard shows it", '"first"' in shown)
        told = self.project.compose("run", "--rm", "study", "mtl", "study", "status", "first")
        self.holds("compose run --rm study mtl study status", "2 complete" in told)

    def stopped(self) -> None:
        """All services stopped in mid-study, and the server alone restarted in mid-study."""
        self._servers()
        study = self.begin("study", "/inputs/long.toml", "")
        self.wait_said(study, "epoch 1")
        self.project.compose("stop")
        self.holds("a stop in mid-study: 130", self.project.state(study)["ExitCode"] == 130)
        self.holds("it says how to go on", "To go on where it stopped" in self._said(study))
        self.up()
        self.wait_said(study, "resumed")
        self.holds("up goes on from checkpoints", "resumed" in self._said(study))
        self.wait_said(study, "epoch 3")
        self.project.run("restart", self.project.container("mlflow"))
        self.holds("the server restarted in mid-study: 0", self.wait_ended(study) == 0)
        self.scores = self.recorded("long", 2, EPOCHS)

    def killed(self) -> None:
        """The dispatcher killed in its container, and then the whole container."""
        self._servers()
        study = self.begin("study", "/inputs/long.toml", "--as killed")
        self.wait_said(study, "epoch 1")
        self.project.kill_inside(study, "mtl study run")
        self.wait_said(study, "resumed")
        self.holds("a dispatcher that is killed is begun again by itself", True)
        self.wait_said(study, "epoch 3")
        self.project.run("kill", study)
        wait_until("the container has ended", lambda: not self.project.state(study)["Running"])
        before = self._said(study).count("resumed")
        self.up("study")
        self.wait_said(study, "resumed", before + 1)
        self.holds("a killed container, up: 0", self.wait_ended(study) == 0)
        found = self.recorded("killed", 2, EPOCHS)
        if self.scores:
            self.holds("scores are those of the study that was stopped", found == self.scores)

    def password(self) -> None:
        """The dashboard with a password."""
        hush, override = secrets.token_hex(12), self._override()
        override["services"]["dashboard"]["environment"] = {"MTL_UI_PASSWORD": hush}
        self.project.change(override)
        for container in self.project.containers("dashboard"):
            self.project.run("rm", "-f", container)
        self.up("dashboard")
        wait_until("the dashboard is healthy", lambda: self.project.healthy("dashboard"))
        url = f"{self.dashboard}/api/studies"
        self.holds("the dashboard asks for the password", ask(url)[0] == 401)
        self.holds("and lets in who has it", ask(url, login=f"mtl:{hush}")[0] == 200)
        said = self.project.log(self.project.container("dashboard"))
        self.holds("it does not say the password", hush not in said)
        self.project.change(self._override())

    def volumes(self) -> None:
        """What was recorded is there after the containers were removed."""
        self._servers()
        before = self._experiments()
        self.project.compose("down")
        self._servers()
        self.holds("down keeps the volumes", self._experiments() == before)
        shown = ask(f"{self.dashboard}/api/studies")[1]
        self.holds("the dashboard has them, too", all(f'"{name}"' in shown for name in before))

    def _experiments(self) -> set[str]:
        text = ask(f"{self.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 99})[1]
        return {each["name"] for each in json.loads(text)["experiments"]} - {"Default"}

    def _servers(self) -> None:
        self.up(*SERVERS)
        for name in SERVERS:
            wait_until(f"{name} is healthy", lambda name=name: self.project.healthy(name))

    # ---- the profile cluster --------------------------------------------------------------------

    def cluster(self) -> None:
        """Two workers in containers of their own, one killed in mid-trial."""
        study = self.begin("cluster-study", "/inputs/long.toml", "--jobs 2")
        self.wait_said(study, "epoch 1")
        workers = self.project.containers("ray-worker")
        self.holds("two workers in containers of their own", len(workers) == 2)
        busy = [worker for worker in workers if self._trains(worker)]
        self.holds(f"trials run in {' and '.join(busy)}", busy)
        self.project.run("kill", busy[0])
        self.wait_said(study, "goes on from its checkpoint")
        self.holds("a worker killed in mid-trial: its trial goes on elsewhere", True)
        self.holds("and the study ends with 0", self.wait_ended(study) == 0)
        self.recorded("long", 2, EPOCHS)

    def head(self) -> None:
        """The cluster's head restarted in mid-study."""
        study = self.begin("cluster-study", "/inputs/long.toml", "--jobs 2 --as head")
        self.wait_said(study, "epoch 1")
        self.project.run("restart", "-t", "1", self.project.container("ray-head"))
        self.wait_said(study, "lost its head node")
        self.wait_said(study, "resumed")
        self.holds("the head restarted: the study goes on to 0", self.wait_ended(study) == 0)
        self.recorded("head", 2, EPOCHS)

    def dispatcher(self) -> None:
        """The dispatcher's container killed in mid-study."""
        study = self.begin("cluster-study", "/inputs/long.toml", "--jobs 2 --as lost")
        self.wait_said(study, "epoch 1")
        self.project.run("kill", study)
        wait_until("the container has ended", lambda: not self.project.state(study)["Running"])
        self.up("cluster-study")
        self.wait_said(study, "resumed")
        self.holds("the dispatcher's container killed, up: 0", self.wait_ended(study) == 0)
        self.recorded("lost", 2, EPOCHS)

    def _trains(self, worker: str) -> bool:
        script = (
            "import pathlib as p; print(any(b'ray::train' in f.read_bytes() "
            "for f in p.Path('/proc').glob('[0-9]*/cmdline')))"
        )
        return "True" in self.project.inside(worker, "python", "-c", script)

    # ---- all of it ------------------------------------------------------------------------------

    def run(self) -> int:
        """Build the image, try the parts; return the exit code."""
        try:
            if not self.options.image:
                self.project.compose("build")
            self._leave()
            for part in self.options.parts:
                self._project_of(part)
                print(f"{part}: {getattr(self, part).__doc__}", flush=True)
                getattr(self, part)()
        except Broken as error:
            self._logs()
            print(f"BROKEN: {error}", file=sys.stderr)
            return 1
        finally:
            if not self.options.keep:
                self._leave()
        return 0

    def _project_of(self, part: str) -> None:
        """Change to the services that a part is about; the others are removed."""
        profile = "cluster" if part in CLUSTER_PARTS else None
        if self.project.profile == profile:
            return
        if not self.options.keep:
            self._leave()
        self.project = self._project(f"mtl-check-{profile or 'plain'}", profile)
        self._leave()

    def _leave(self) -> None:
        self.project.compose("down", "--volumes", "-t", "5", needed=False)

    def _logs(self) -> None:
        for service in (*OURS, "postgres", *CLUSTER):
            for container in self.project.containers(service):
                tail = self.project.log(container).splitlines()[-40:]
                state = self.project.state(container)["Status"]
                print(f"---- {container}: {state}", *tail, sep="\n", flush=True)


def _options() -> argparse.Namespace:
    given = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--compose", default=given("MTL_COMPOSE"), help="the command, with options")
    parser.add_argument("--image", default=given("MTL_IMAGE"), help="built with ray,postgres")
    parser.add_argument(
        "--postgres-image", default=given("MTL_POSTGRES_IMAGE"), help="instead of postgres:17"
    )
    parser.add_argument("--mlflow-port", type=int, default=15000)
    parser.add_argument("--dashboard-port", type=int, default=18080)
    parser.add_argument("--keep", action="store_true", help="leave containers and volumes there")
    options = parser.parse_args()
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    options.parts = options.parts or list(PARTS)
    options.compose = options.compose or found_compose()
    return options


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    folder = Path(tempfile.mkdtemp(prefix="mtl-containers-"))
    try:
        return Check(options, folder).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())
