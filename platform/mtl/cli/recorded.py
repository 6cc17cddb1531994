"""Reading what was recorded: studies by name, how far they are, their best trial."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

if TYPE_CHECKING:
    import optuna

STATES = ("complete", "pruned", "failed", "running", "waiting")


def _storage() -> optuna.storages.BaseStorage | None:
    """Open the home's storage for reading; None where nothing was ever recorded."""
    from mtl.stores import Home, read_storage

    return read_storage(Home.resolve(create=False))


def recorded_studies() -> list[dict[str, Any]]:
    """List the recorded studies with how many trials of each state they have."""
    storage = _storage()
    if storage is None:
        return []
    rows = []
    for study in sorted(storage.get_all_studies(), key=lambda frozen: frozen.study_name):
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        rows.append({"name": study.study_name, "trials": len(trials), **_counts(trials)})
    return rows


def _counts(trials: list[optuna.trial.FrozenTrial]) -> dict[str, int]:
    found = Counter(trial.state.name for trial in trials)
    return {word: found[state] for state, word in STATES.items()}


def open_recorded(name: str) -> optuna.Study:
    """Open a recorded study for reading.

    Raises:
        InputError: there is none of this name (those that are, or how to record it, are named).
    """
    import optuna

    storage = _storage()
    names = [] if storage is None else [s.study_name for s in storage.get_all_studies()]
    if name in names:
        return optuna.load_study(study_name=name, storage=storage)
    raise InputError(f"no study {name!r} is recorded here; {_hint(name, names)}")


def _hint(name: str, names: list[str]) -> str:
    from mtl.spec import list_studies
    from mtl.studyfile import nearest

    if name in {info.name for info in list_studies()}:
        return f"record it with: mtl study run {name}"
    if not names:
        return "nothing is; start with: mtl study run lora_sweep"
    return nearest(name, names)


def status_payload(study: optuna.Study) -> dict[str, Any]:
    """Say how far a study is: counts by state, the running trials, the best one."""
    trials = study.get_trials(deepcopy=False)
    running = [trial for trial in trials if trial.state.name == "RUNNING"]
    return {
        "study": study.study_name,
        "profile": study.user_attrs.get("profile"),
        "trials": len(trials),
        **_counts(trials),
        "running_trials": [_running(trial) for trial in running],
        "best": best_payload(study)["best"],
    }


def _running(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    values = trial.intermediate_values
    return {
        "number": trial.number,
        "params": trial.params,
        "step": max(values, default=None),
        "score": values[max(values)] if values else None,
    }


def best_payload(study: optuna.Study) -> dict[str, Any]:
    """Return the best trial as the leaderboard has it; None where none has ended."""
    from mtl.report import leaderboard

    ended = [row for row in leaderboard(study) if row["rank"] == 1]
    return {"study": study.study_name, "best": ended[0] if ended else None}
