"""What the study commands say of recorded studies, as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

if TYPE_CHECKING:
    import optuna

    from mtl.recorded import RecordedStudy

STATES = ("complete", "pruned", "failed", "running")


def open_study(name: str) -> optuna.Study:
    """Open a recorded study of the home for reading.

    Raises:
        InputError: nothing is recorded under that name; how to record it is said if it is known.
    """
    from mtl.recorded import open_recorded
    from mtl.spec import list_studies
    from mtl.stores import Home

    try:
        return open_recorded(Home.resolve(create=False), name)
    except InputError:
        if name not in {info.name for info in list_studies()}:
            raise
        raise InputError(
            f"study {name} is not recorded here yet; run it: mtl study run {name}"
        ) from None


def summary_payload(recorded: RecordedStudy) -> dict[str, Any]:
    """Say how many trials a recorded study has, by state."""
    return {"name": recorded.name, "profile": recorded.profile, "trials": recorded.trials} | {
        state: recorded.states.get(state, 0) for state in STATES
    }


def status_payload(study: optuna.Study) -> dict[str, Any]:
    """Say how far a study is: counts by state, the running trials, the best one."""
    from mtl.lease import dispatcher_of
    from mtl.recorded import summarize
    from mtl.stores import Home, open_engine

    engine = open_engine(Home.resolve(create=False))
    summary = summary_payload(summarize(study))
    trials = study.get_trials(deepcopy=False)
    running = [_running(trial) for trial in trials if trial.state.name == "RUNNING"]
    return {
        "study": summary.pop("name"),
        **summary,
        "dispatcher": dispatcher_of(engine, study.study_name),
        "running_trials": running,
        "best": best_payload(study)["best"],
    }


def _running(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    values = trial.intermediate_values
    last = max(values, default=None)
    score = None if last is None else values[last]
    return {"number": trial.number, "params": trial.params, "epoch": last, "score": score}


def best_payload(study: optuna.Study) -> dict[str, Any]:
    """Return the best trial as the leaderboard has it; None where none has ended."""
    from mtl.report import leaderboard

    best = next((row for row in leaderboard(study) if row["rank"] == 1), None)
    return {"study": study.study_name, "best": best}
