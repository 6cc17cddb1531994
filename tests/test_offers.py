"""How long a study still takes, and what it is offered next: only what would do something.

Room: mtl/cli, mtl/terminal.
"""

import datetime
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from mtl.storage.home import Home
from mtl.storage.lease import Lease
from mtl.storage.optuna import open_engine, open_storage
from mtl.terminal import progress
from mtl.terminal.progress import RunningTrial, StudyProgress
from support.study_runs import Study


def test_a_grid_with_cells_left_is_offered_those(tmp_path, home):
    search = '"lora.rank" = [1, 2]\n"lora.alpha" = [1.0, 2.0]'
    study = Study(tmp_path, home, sampler="grid", search=search, trials=4, epochs=1, steps=1)
    for offered in ("the other 2 cells, too", "--trials 4 tries the other 2 settings, too"):
        code, out = study.run_here("--jobs", "1", "--trials", "2")
        assert code == 0 and offered in out and "--trials 4" in out, out
        assert "--replicates" not in out
    code, out = study.run_here("--jobs", "1", "--trials", "4")
    offers = out.partition("What next")[2]
    assert code == 0 and "--replicates 3" in offers and "--trials" not in offers, out
    assert len({tuple(row[1:]) for row in study.params() if row[1] == "lora.rank"}) == 2


def test_a_pause_is_no_pace_of_a_study(home, here, tmp_path):
    """Two trials of a minute each, a day between them; one runs, one is to come."""
    place, began = Home.resolve(), datetime.datetime(2026, 1, 1)
    study = optuna.create_study(
        study_name="tiny", storage=open_storage(place), direction="maximize"
    )
    study.set_user_attr("total", 4)
    for day in (0, 1):
        ended = create_trial(value=0.5, state=TrialState.COMPLETE, user_attrs={"minutes": 1.0})
        ended.datetime_start = began
        ended.datetime_complete = began + datetime.timedelta(days=day, minutes=1)
        study.add_trial(ended)
    study.ask()
    with Lease(open_engine(place), "tiny"):
        outcome = here(tmp_path, "study", "status", "tiny", "--json")
    assert outcome.code == 0, outcome
    assert outcome.json["seconds_left"] == pytest.approx(120, rel=0.5)


def test_a_live_view_leaves_out_what_it_was_suspended_for(monkeypatch):
    now = 100.0
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now))
    seen, running = StudyProgress(0, 2, _looked=now), RunningTrial("α=4", False, 0, 100, 0)
    for step in range(1, 11):
        now += 1.0
        running.step = step
        left = seen.left([running])
    assert left == pytest.approx(190)  # a second a step
    now += 3600.0
    assert seen.left([running]) == pytest.approx(190)
