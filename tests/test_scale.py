"""Many trials: what one costs does not depend on how many there were. Counted, not timed.

Room: mtl/dispatch, mtl/trials.
"""

import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import sqlalchemy as sa

from mtl.dispatch.run import run_study
from mtl.dispatch.view import View
from mtl.storage.home import Home
from mtl.study.load import load_study
from support.paths import REPOSITORY

FILE = """
sampler = "random"
trials = 1000
[config]
"train.epochs" = 1
[search]
"lora.rank" = [1, 2, 4]
"lora.alpha" = { low = 1.0, high = 32.0, log = true }
"train.lr" = { low = 1e-5, high = 1e-2, log = true }
"""
MANY, COUNTED = 500, 5
_PARTS = ("params", "values", "user_attributes", "system_attributes", "intermediate_values")


class Counter(View):
    """Counts SQL statements and calls of Python functions from the end of a trial to the next, for
    so many trials, and then has the study interrupted: its end counts nothing."""

    def __init__(self) -> None:
        self.statements, self.calls, self.seen = 0, 0, []

    def study_started(self, *_: object) -> None:
        sa.event.listen(sa.Engine, "before_cursor_execute", self._statement)
        sys.setprofile(self._call)  # of this thread: of the dispatcher

    def trial_ended(self, *_: object) -> None:
        self.seen.append((self.statements, self.calls))
        if len(self.seen) > COUNTED:
            self.close()
            os.kill(os.getpid(), signal.SIGINT)

    def close(self) -> None:
        if sys.getprofile() is not None:
            sys.setprofile(None)
            sa.event.remove(sa.Engine, "before_cursor_execute", self._statement)

    def _statement(self, *_: object) -> None:
        self.statements += 1

    def _call(self, frame: object, event: str, argument: object) -> None:
        self.calls += event == "call"

    @property
    def each(self) -> tuple[float, float]:
        """Statements and calls a trial."""
        pairs = list(zip(self.seen, self.seen[1:], strict=False))
        return tuple(median(after[i] - before[i] for before, after in pairs) for i in (0, 1))


@pytest.fixture
def counted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Run some more trials that train nothing; return what each cost. MLflow is away."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    from scale_noop import NoopExecutor

    monkeypatch.setattr("mtl.dispatch.run.open_executor", lambda _, *given: NoopExecutor(*given))

    def run() -> tuple[float, float]:
        file = tmp_path / "scale.toml"
        file.write_text(FILE)
        spec = load_study(str(file))
        with Counter() as counter:
            result = run_study(spec, Home.resolve(), jobs=1, view=counter)
        assert result.interrupted
        return counter.each

    return run


def multiply(home: Path, total: int) -> None:
    """Copy a study's trials, and what waits for MLflow of them, until there are so many."""
    database = sqlite3.connect(home / "optuna.db")
    have, last = database.execute("select count(*), max(trial_id) from trials").fetchone()
    copies = (  # i is the number of a copy
        f"with recursive copies(i) as (select {have} union all select i + 1 from copies where "
        f"i + 1 < {total}) select {last + 1 - have} + i, WHAT from copies join trials t "
        f"on t.number = i % {have}"
    )
    for part in _PARTS:
        columns = [row[1] for row in database.execute(f"pragma table_info(trial_{part})")]
        names = ", ".join(name for name in columns[1:] if name != "trial_id")
        given = copies.replace("WHAT", names) + f" join trial_{part} p on p.trial_id = t.trial_id"
        database.execute(f"insert into trial_{part} (trial_id, {names}) {given}")
    kept = "study_id, state, datetime_start, datetime_complete"
    database.execute(f"insert into trials {copies.replace('WHAT', f'i, {kept}')}")
    database.commit()
    database.close()
    [box] = home.glob("spool/*-0")
    for number in range(have, total):
        copy = box.with_name(f"{box.name[:-2]}-{number}")
        copy.mkdir()
        shutil.copyfile(box / "journal.jsonl", copy / "journal.jsonl")


def test_a_trial_costs_the_same_however_many_there_were(home, counted):
    statements, calls = counted()
    multiply(home, MANY)
    statements_later, calls_later = counted()
    assert statements_later == statements
    # Optuna sorts its list of all trials, with a call for each: twice a trial.
    assert (calls_later - calls) / MANY < 3
