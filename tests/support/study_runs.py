"""Small studies, run through the real command line, and what they leave in the two stores."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import small
from .commands import command as mtl_command, mtl_here
from .tracking_samples import new_store

MTL = mtl_command()
# Timings, which no two runs share.
TIMED = (
    *("train/tokens_per_second", "train/seconds", "dev/seconds"),
    *("system/process_cpu_percentage", "system/process_memory_megabytes"),
)


def write_study(folder: Path, **changes) -> Path:
    """Write a study of three trials of some twenty steps, on random weights and words."""
    text = {
        "trials": 3,
        "sampler": "random",
        "pruner": "none",
        "epochs": 3,
        "steps": 8,
        "search": '"lora.rank" = [1, 2, 4]\n"lora.alpha" = { low = 1.0, high = 32.0, log = true }',
        "more": "",
    } | changes
    backbone, data = folder / "bert", folder / "data"
    if not backbone.exists():
        small.backbone(backbone)
        small.data(data)
    path = folder / "tiny.toml"
    path.write_text(f"""
description = "a tiny study"
sampler = "{text["sampler"]}"
pruner = "{text["pruner"]}"
trials = {text["trials"]}
[config]
backbone = {_toml(backbone)}
"data.path" = {_toml(data)}
"train.epochs" = {text["epochs"]}
"train.steps_per_epoch" = {text["steps"]}
"train.batch_size" = 4
"train.lr" = 0.01
"train.precision" = "float32"
"train.mode" = "last-linear-layer"
[search]
{text["search"]}
{text["more"]}
""")
    return path


def _toml(path: Path) -> str:
    return json.dumps(str(path), ensure_ascii=False)


class Study:
    """A study file in a home of its own.

    Attributes:
        env: what the command's environment has beside this process'.
        mlflow: the folder with mlflow.db and artifacts: the home, unless a server keeps them.
        servers: URLs of databases that are no files, by the files' names.
    """

    def __init__(self, folder: Path, home: Path, **changes) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._settle(write_study(folder, **changes), home)

    def _settle(self, file: Path, home: Path) -> None:
        self.file, self.home, self.mlflow = file, home, home
        self.env: dict[str, str] = {}
        self.servers: dict[str, str] = {}
        self.process: subprocess.Popen | None = None

    @classmethod
    def of(cls, file: Path, home: Path) -> "Study":
        """Return the study of a file that is there already."""
        study = object.__new__(cls)
        study._settle(file, home)
        return study

    def furnished(self) -> "Study":
        """Give the home an empty MLflow store, for which a new process takes seconds of
        migrations; return the study."""
        new_store(self.home / "mlflow.db")
        return self

    def elsewhere(self, home: Path) -> "Study":
        """Return the same study, over the same files, in another home."""
        return self.of(self.file, home)

    def start(self, *options: str, log: Path | None = None) -> subprocess.Popen:
        """Start `mtl study run` in a session of its own; what it prints can be read from its
        stdout, or is added to a log."""
        with log.open("ab") if log else contextlib.nullcontext(subprocess.PIPE) as out:
            self.process = subprocess.Popen(
                [MTL, "study", "run", str(self.file), *(options or ("--jobs", "1"))],
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                env=self.environment(),
                start_new_session=True,
            )
        return self.process

    def environment(self) -> dict[str, str]:
        """Return the environment in which `mtl` finds this study."""
        return {**os.environ, "MTL_HOME": str(self.home), "PYTHONUNBUFFERED": "1", **self.env}

    def wait_for(self, text: str) -> str:
        """Read what it prints up to a line that holds the text."""
        seen = []
        for line in self.process.stdout:
            seen.append(line)
            if text in line:
                return "".join(seen)
        raise AssertionError(f"{text!r} never came:\n{''.join(seen)}")

    def end(self) -> tuple[int, str]:
        """Wait for the end; return the exit code and the rest of the output."""
        rest = self.process.stdout.read()
        return self.process.wait(), rest

    def run(self, *options: str) -> tuple[int, str]:
        """Run it to its end; return the exit code and the output."""
        self.start(*options)
        return self.end()

    def run_here(self, *options: str) -> tuple[int, str]:
        """The same in this process, where the libraries are loaded already."""
        return self.mtl("run", str(self.file), *(options or ("--jobs", "1")))

    def run_until_trained(self, number: int, *options: str) -> tuple[int, str]:
        """The same with a trial that would train for minutes: once it has been evaluated, somebody
        else tells Optuna that it has failed, which ends it."""
        with ThreadPoolExecutor(1) as pool:
            told = pool.submit(self._fail, number)
            ended = self.run_here(*options)
            told.result()
        return ended

    def _fail(self, number: int) -> None:
        import optuna

        evaluated = f"""select 1 from trial_intermediate_values join trials using (trial_id)
            where number = {number}"""
        wait_until(lambda: self.query("optuna.db", evaluated))
        storage = f"sqlite:///{self.home}/optuna.db"
        study = optuna.load_study(study_name="tiny", storage=storage)
        study.tell(number, state=optuna.trial.TrialState.FAIL)

    def mtl(self, command: str, *args: str) -> tuple[int, str]:
        """Run a command of `mtl study` in this process; return the exit code and the output."""
        env = {"MTL_HOME": str(self.home), **self.env}
        done = mtl_here(self.file.parent, "study", command, *args, **env)
        return done.code, done.out + done.err

    def kill(self) -> None:
        """kill -9 the dispatcher, if it runs; its workers must notice by themselves."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def query(self, database: str, sql: str) -> list[tuple]:
        url = self.servers.get(database) or (
            self.environment().get("MTL_STORAGE") if database == "optuna.db" else None
        )
        if url is not None:
            return _query_server(url, sql)
        folder = self.mlflow if database == "mlflow.db" else self.home
        connection = sqlite3.connect(folder / database, timeout=60)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    # ---- what is recorded -----------------------------------------------------------------------

    def trials(self, name: str = "tiny") -> list[tuple]:
        """(number, state, value) of each trial."""
        return self.query(
            "optuna.db",
            f"""
            select t.number, t.state, v.value from trials t join studies s using (study_id)
            left join trial_values v using (trial_id) where s.study_name = '{name}'
            order by t.number""",
        )

    def studies(self) -> list[str]:
        return [row[0] for row in self.query("optuna.db", "select study_name from studies")]

    def attribute(self, number: int, key: str):
        rows = self.query(
            "optuna.db",
            f"""
            select a.value_json from trial_user_attributes a join trials using (trial_id)
            where number = {number} and key = '{key}' union
            select a.value_json from trial_system_attributes a join trials using (trial_id)
            where number = {number} and key = 'mtl:{key}'""",
        )
        return json.loads(rows[0][0]) if rows else None

    def params(self) -> list[tuple]:
        return self.query(
            "optuna.db",
            """
            select number, param_name, param_value from trial_params join trials using (trial_id)
            order by number, param_name""",
        )

    def run_ids(self) -> list[tuple]:
        """Every MLflow run, in the order of their beginnings."""
        return self.query("mlflow.db", "select run_uuid from runs order by start_time")

    def runs(self) -> dict[str, str]:
        """Status of each MLflow run, by its name up to the parameters."""
        return {
            name.split(" · ")[0]: status
            for name, status in self.query("mlflow.db", "select name, status from runs")
        }

    def points(self) -> list[tuple]:
        """Every metric point but timings: (run, key, step, value)."""
        rows = self.query(
            "mlflow.db",
            """
            select r.name, m.key, m.step, m.value from metrics m join runs r using (run_uuid)
            order by r.name, m.key, m.step""",
        )
        return [row for row in rows if row[1] not in TIMED]

    def doubles(self) -> list[tuple]:
        """Metric points of which there are two for one step."""
        return self.query(
            "mlflow.db",
            """
            select run_uuid, key, step, count(*) from metrics
            group by run_uuid, key, step having count(*) > 1""",
        )

    def tag(self, run: str, key: str) -> str | None:
        rows = self.query(
            "mlflow.db",
            f"""
            select t.value from tags t join runs r using (run_uuid)
            where r.name like '{run}%' and t.key = '{key}'""",
        )
        return rows[0][0] if rows else None

    def worker_pids(self) -> list[int]:
        """Processes of the running study's workers; none if it does not run."""
        import psutil

        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children if _is_worker(child)]


def _query_server(url: str, sql: str) -> list[tuple]:
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text(re.sub(r":(?=\w)", r"\\:", sql))).all()
        return [tuple(row) for row in rows]
    finally:
        engine.dispose()


def _is_worker(process) -> bool:
    import psutil

    try:
        return "mtl.worker" in process.cmdline()
    except psutil.Error:  # it has just ended
        return False


def wait_until(condition, seconds: float = 60.0) -> None:
    """Wait until a condition holds; how long it takes says nothing, never is a failure."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
