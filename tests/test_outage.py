"""A database server that goes away in the middle of a study: nothing is lost, nothing twice.

Room: mtl/dispatch.
"""

import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path

import pytest

from minbert.training.checkpoint import LAST
from mtl.dispatch import outage, run as dispatch
from mtl.dispatch.run import run_study
from mtl.dispatch.view import View
from mtl.executors.base import Executor
from mtl.storage.home import Home
from mtl.storage.lease import Lease, LeaseLostError
from mtl.storage.lease_table import TABLE
from mtl.storage.optuna import open_engine
from mtl.study.load import load_study
from mtl.worker.messages import ENDINGS, Died, Evaluated, Failed, Finished, Progress, Stopped
from support.invariants import broken
from support.postgres import LossyProxy, free_port
from support.study_runs import Study, wait_until

# Which requests are lost: one in STRIDE, so that steps come to an end. Each offset, up to twice
# STRIDE, is another set of requests, or other ways to lose the same.
STRIDE, OFFSETS = 131, (40, 151)
AWAY, BACK = "the database is away", "the database answers again"


def test_a_study_outlives_its_databases_absences(tmp_path, home, postgres, postgres_url):
    study = Study(tmp_path / "study", home, trials=2, epochs=4, steps=60).furnished()
    study.env["MTL_STORAGE"] = postgres_url
    study.start()
    out = study.wait_for("trial 0 epoch 1")
    postgres.stop()
    out += study.wait_for(AWAY)
    out += study.wait_for("trial 0 epoch 4")  # nobody judges: evaluations are kept, and it goes on
    postgres.start()
    out += study.wait_for("trial 1 epoch 1")
    assert "Traceback" not in out and "ge/heim" not in out
    for said in (AWAY, BACK, "trial 0 complete"):
        assert out.count(said) == 1, out

    postgres.stop()
    study.wait_for(AWAY)
    study.wait_for("trial 1 epoch 2")
    study.process.send_signal(signal.SIGINT)
    code, out = study.end()
    assert code == 130 and "To go on where it stopped" in out, out
    assert "Traceback" not in out and out.count("trial 1 unfinished") == 1, out
    assert (home / "checkpoints/tiny/1" / LAST).exists()

    postgres.start()
    code, out = study.run_here()
    assert code == 0, out
    assert broken(study, 2) == []
    reported = study.query("optuna.db", "select step from trial_intermediate_values")
    assert sorted(reported) == sorted([(n,) for n in (1, 2, 3, 4)] * 2)
    assert study.query("optuna.db", "select * from mtl_leases") == []


# ---- answers that are lost ----------------------------------------------------------------------


class Scripted(Executor):
    """Runs trials by saying at once what a worker would say: two epochs each. The second trial
    loses its worker once, the fourth fails."""

    def __init__(self, folder: Path) -> None:
        self.workers = self.width = 1
        self._said: deque = deque()
        self._at: dict[int, int] = {}
        self.picture = folder / "sst.png"
        self.picture.write_bytes(b"png")
        self.submitted: list[int] = []

    @property
    def free(self) -> int:
        return self.workers - len(self._at)

    def submit(self, job) -> None:
        self.submitted.append(job.number)
        self._at[job.number] = 0
        self._said.append(Progress(job.number, 1, 10, 0.5, 1.0))
        if self.submitted == [0, 1]:
            self._said.append(Died(1, -9))
        elif job.number == 3:
            self._said.append(Failed(3, "it was too hard", "Traceback"))
        else:
            self.advance(job.number)

    def advance(self, number: int) -> None:
        self._at[number] += 1
        if self._at[number] > 2:
            scores = {"score": 0.5 + number / 100, "sst_accuracy": 0.5}
            end = Finished(number, scores["score"], scores, {}, 2, 0.1, 10, 20, 30,
                           [str(self.picture)])  # fmt: skip
            self._said.append(end)
        else:
            score = 0.1 * self._at[number]
            self._said.append(Evaluated(number, self._at[number], 1, {"score": score}, score))

    def cancel(self, number: int, prune: bool = False) -> None:
        self._said.append(Stopped(number))

    def events(self, timeout: float) -> list:
        events = [self._said.popleft()] if self._said else []
        for event in events:
            if isinstance(event, ENDINGS):
                del self._at[event.number]
        return events

    def keep_alive(self) -> None:
        pass

    def close(self) -> None:
        pass


class Heard(View):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.ends: list[tuple] = []
        self.epochs: list[tuple] = []

    def message(self, text):
        self.messages.append(text)

    def trial_evaluated(self, number, epoch, scores, best_score):
        self.epochs.append((number, epoch))

    def trial_ended(self, number, state, score, reason):
        self.ends.append((number, state))


@pytest.fixture
def lossy(postgres, postgres_url, monkeypatch):
    proxy = LossyProxy(postgres.port)
    name = postgres_url.rpartition("/")[2]
    monkeypatch.setenv("MTL_STORAGE", postgres.url(name, proxy.port))
    monkeypatch.setattr(outage, "_FIRST", 0.02)
    yield proxy
    proxy.close()


def scripted_study(folder: Path, monkeypatch, name: str, begun=lambda: None) -> tuple:
    """Run a study of four trials that nobody trains; return what was heard, and by the workers.

    Args:
        begun: called when the study is about to be recorded.
    """
    study = Study(folder / "study", folder / "home", trials=4, pruner="median")
    pool, heard = Scripted(folder), Heard()
    monkeypatch.setattr(dispatch, "open_executor", lambda *_: pool)
    monkeypatch.setattr(dispatch, "preflight", lambda *_: begun() or {})
    result = run_study(
        load_study(str(study.file)), Home.resolve(), jobs=1, view=heard, study_name=name
    )
    assert (result.total, result.complete, result.failed, result.new_trials) == (4, 3, 1, 4)
    return study, heard, pool


def assert_nothing_lost_or_twice(study: Study, name: str, heard: Heard, pool: Scripted) -> None:
    assert heard.ends == [(0, "complete"), (1, "complete"), (2, "complete"), (3, "failed")]
    assert heard.epochs == [(n, epoch) for n in range(3) for epoch in (1, 2)]
    assert pool.submitted == [0, 1, 1, 2, 3]
    assert [study.attribute(n, "retries") for n in range(4)] == [None, 1, None, None]
    assert study.attribute(3, "reason") == "it was too hard"
    of_it = f"""join trials t using (trial_id) join studies using (study_id)
        where study_name = '{name}'"""
    complete = [(n, "COMPLETE", 0.5 + n / 100) for n in range(3)]
    assert study.trials(name) == [*complete, (3, "FAIL", None)]
    points = study.query(
        "optuna.db", f"select t.number, step from trial_intermediate_values {of_it}"
    )
    assert sorted(points) == [(n, epoch) for n in range(3) for epoch in (1, 2)]
    pictures = f"select t.number from trial_system_attributes {of_it} and key like 'artifacts:%'"
    assert sorted(study.query("optuna.db", pictures)) == [(0,), (1,), (2,)]
    runs = f"""select r.name, r.status from runs r join experiments e using (experiment_id)
        where e.name = '{name}'"""
    names = [run.split(" · ")[0] for run, _ in study.query("mlflow.db", runs)]
    assert sorted(names) == [f"study {name}", *(f"trial {n}" for n in range(4))]
    states = Counter(status for _, status in study.query("mlflow.db", runs))
    assert states == {"FINISHED": 4, "FAILED": 1}


@pytest.mark.parametrize("offset", OFFSETS)
def test_connections_that_are_lost_anywhere_lose_nothing_and_double_nothing(
    tmp_path, lossy, monkeypatch, offset
):
    """Any request of a study may be the one that is lost: before the server has done what it was
    asked, or after, so that only the answer is missing."""

    def lose() -> None:
        first = lossy.requests + 1 + offset // 2
        places = enumerate(range(first, first + 5000, STRIDE))
        lossy.lost = {at: (turn + offset) % 2 > 0 for turn, at in places}

    study, heard, pool = scripted_study(tmp_path, monkeypatch, "lossy", lose)
    lossy.lost = {}
    assert_nothing_lost_or_twice(study, "lossy", heard, pool)
    told = [AWAY in text for text in heard.messages if AWAY in text or BACK in text]
    assert told == [True, False] * (len(told) // 2) and len(told) >= 6, heard.messages


# ---- the lease ----------------------------------------------------------------------------------


def test_a_lease_outlives_an_outage_unless_another_takes_it(postgres, postgres_url, monkeypatch):
    monkeypatch.setenv("MTL_STORAGE", postgres_url)
    engine = open_engine(Home.resolve())
    with Lease(engine, "s", term=0.6) as lease, Lease(engine, "t", term=0.6) as taken:
        postgres.stop()
        wait_until(lambda: lease._away and taken._away)
        time.sleep(1.0)  # longer than the term
        postgres.start()
        with engine.begin() as connection:
            connection.execute(
                TABLE.update().where(TABLE.c.study == "t").values(holder="another", host="b")
            )
        lease.hold()
        with pytest.raises(LeaseLostError):
            taken._renewed = []
            taken.hold()
        wait_until(lambda: not lease._away)
    with engine.connect() as connection:
        rows = connection.execute(TABLE.select()).all()
    assert [(row.study, row.holder) for row in rows] == [("t", "another")]


def test_a_lease_is_left_behind_where_the_database_is_away(postgres, postgres_url, monkeypatch):
    monkeypatch.setenv("MTL_STORAGE", postgres_url)
    with Lease(open_engine(Home.resolve()), "s"):
        postgres.stop()


# ---- a server that is not there -----------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("study", "run", "lora_sweep"),
        ("study", "status", "lora_sweep"),
        ("study", "report", "lora_sweep"),
        ("study", "compare", "lora_sweep"),
        ("study", "best", "lora_sweep"),
        ("study", "list"),
    ],
)
def test_a_server_that_is_not_there_is_one_line(here, tmp_path, command):
    pytest.importorskip("psycopg")
    url = f"postgresql+psycopg://me:hunter2%2Fx@127.0.0.1:{free_port()}/studies"
    done = here(tmp_path, *command, MTL_STORAGE=url)
    done.refused("storage postgresql+psycopg://me:***@127.0.0.1", "cannot be reached", "refused")
    assert "hunter2" not in done.err


def test_a_wrong_password_is_one_line_without_it(here, tmp_path, postgres, postgres_url):
    url = postgres_url.replace("nis", "nix")
    done = here(tmp_path, "study", "status", "lora_sweep", MTL_STORAGE=url)
    done.refused("cannot be reached", "password authentication failed")
    assert "heim" not in done.err


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    here, tmp_path, monkeypatch, driver
):
    monkeypatch.setitem(sys.modules, driver, None)
    url = f"postgresql+{driver}://me@127.0.0.1:1/studies"
    for command in (("study", "status", "x"), ("study", "run", "lora_sweep")):
        here(tmp_path, *command, MTL_STORAGE=url).refused(driver, "'.[postgres]'")
