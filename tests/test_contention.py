"""Many workers on the same SQLite files, with both user interfaces open on them: no write waits in
vain, nothing is lost, nothing is there twice.

Room: mtl/tracking, mtl/storage.
"""

from pathlib import Path

from support.invariants import broken, read_trials
from support.readers import open_pages, served, trouble_in
from support.study_runs import Study, wait_until

WORKERS, TRIALS = 8, 8


def test_eight_workers_and_open_pages_share_two_files(tmp_path):
    study = Study(tmp_path / "study", tmp_path / "home", epochs=2, steps=10).furnished()
    log = tmp_path / "study.log"
    with served(study.home) as (_, *addresses):
        study.start("--jobs", str(WORKERS), "--trials", str(TRIALS), log=log)
        wait_until(lambda: _trains(study, log), 240)  # until then there is nothing to get into
        with open_pages(*addresses) as readers:
            code = study.process.wait()

    assert code == 0, log.read_text()
    assert trouble_in(study.home / "logs", log) == []
    assert [fault for reader in readers for fault in reader.faults] == []
    assert min(reader.reads for reader in readers) > 0
    # Complete, in the order of asking, each under one run, and no point lost or doubled.
    assert broken(study, TRIALS) == []
    asked = study.query("optuna.db", "select number from trials order by trial_id")
    assert asked == [(number,) for number in range(TRIALS)]
    for trial in read_trials(study):
        assert sorted(trial.intermediate) == [1, 2]
        assert [s for k, s in sorted(trial.points) if k == "train/batch_loss"] == [10, 20]
        assert [s for k, s in sorted(trial.points) if k == "dev/score"] == [10, 20]


def _trains(study: Study, log: Path) -> bool:
    """Whether the first trial has been evaluated, or never will be."""
    return " epoch 1:" in log.read_text() or study.process.poll() is not None
