"""What the study commands say of recorded studies, as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

from ..trials.states import COUNTED, FAILED, RUNNING, UNFINISHED, WAITING

if TYPE_CHECKING:
    import optuna

    from ..storage.home import Home
    from ..trials.recorded import RecordedStudy


def open_study(name: str) -> optuna.Study:
    """Open a recorded study of the home for reading.

    Raises:
        InputError: nothing is recorded under that name; how to record it is said if it is known.
    """
    from ..storage.home import Home
    from ..study.load import list_studies
    from ..trials.recorded import UnknownStudyError, open_recorded

    try:
        return open_recorded(Home.resolve(create=False), name)
    except UnknownStudyError:
        if name not in {info.name for info in list_studies()}:
            raise
        raise InputError(
            f"study {name} is not recorded here yet; run it: mtl study run {name}"
        ) from None


def command_of(name: str) -> str | None:
    """Return the command that last ran a recorded study; None if there is no such study."""
    from ..storage.home import Home
    from ..trials.recorded import UnknownStudyError, open_recorded, to_continue

    try:
        return to_continue(open_recorded(Home.resolve(create=False), name).user_attrs)
    except UnknownStudyError:
        return None


def summary_payload(recorded: RecordedStudy, dispatcher: str | None) -> dict[str, Any]:
    """Say how many trials a recorded study has, by state; those ``unfinished`` are running by
    Optuna's word, but nobody works on them."""
    counts = {state: recorded.states.get(state, 0) for state in COUNTED}
    counts[UNFINISHED] = 0 if dispatcher else counts[RUNNING]
    return {
        "name": recorded.name,
        "profile": recorded.profile,
        "trials": recorded.trials,
        **counts,
    }


def list_payload(home: Home) -> list[dict[str, Any]]:
    """Say of every recorded study of a home how many trials it has, by state."""
    from ..storage.lease import dispatchers
    from ..storage.optuna import read_engine
    from ..trials.recorded import recorded_studies

    studies = recorded_studies(home)
    begun = any(study.states.get(RUNNING) for study in studies)
    working = dispatchers(read_engine(home)) if begun else {}
    return [summary_payload(study, working.get(study.name)) for study in studies]


def status_payload(study: optuna.Study) -> dict[str, Any]:
    """Say how far a study is: counts by state, the running and failed trials, the best one."""
    from ..storage.home import Home
    from ..storage.lease import dispatcher_of
    from ..storage.optuna import read_engine
    from ..tracking.waiting import waiting
    from ..trials.leaderboard import best_of, leaderboard
    from ..trials.recorded import summarize, to_continue

    home = Home.resolve(create=False)
    dispatcher = dispatcher_of(read_engine(home), study.study_name)
    unsent = waiting(home.spool, study.user_attrs.get("key", ""))
    summary = summary_payload(summarize(study), dispatcher)
    rows = leaderboard(study)
    trials = study.get_trials(deepcopy=False)
    by_number = sorted(rows, key=lambda row: row["number"])
    running = [_running(r, trials[r["number"]]) for r in by_number if r["state"] == RUNNING]
    return {
        "study": summary.pop("name"),
        **summary,
        "total": _total(study, rows),
        "dispatcher": dispatcher,
        "command": to_continue(study.user_attrs),
        "running_trials": running,
        "failed_trials": [_failed(row) for row in by_number if row["state"] == FAILED],
        "seconds_left": _seconds_left(study, rows, len(running)) if dispatcher else None,
        "waiting": {"runs": unsent.runs, "reasons": unsent.reasons, "words": unsent.words},
        "best": best_of(rows),
    }


def _failed(row: dict[str, Any]) -> dict[str, Any]:
    from ..trials.leaderboard import row_label

    return {"number": row["number"], "setting": row_label(row), "reason": row["reason"]}


def _running(row: dict[str, Any], trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    from ..trials.leaderboard import row_label

    values = trial.intermediate_values
    epochs = sorted(values)
    return {
        "number": trial.number,
        "setting": row_label(row),
        "params": trial.params,
        "epoch": epochs[-1] if epochs else None,
        "epochs": row["config"].get("train.epochs"),
        "score": values[epochs[-1]] if epochs else None,
        "scores": [values[epoch] for epoch in epochs],
    }


def _total(study: optuna.Study, rows: list[dict[str, Any]]) -> int | None:
    """How many trials a study ends with, what a person has added included; None if unknown."""
    total = study.user_attrs.get("total")
    return total + sum(row["extra"] for row in rows) if isinstance(total, int) else None


def _seconds_left(study: optuna.Study, rows: list[dict[str, Any]], running: int) -> float | None:
    """Estimate what a study takes from here on: by the minutes that its trials trained, pauses
    aside, and how many run at once. None where none has, or nobody works on it."""
    took = [60 * row["minutes"] for row in rows if row["minutes"] is not None]
    total = _total(study, rows)
    if not took or not running or total is None:
        return None
    ended = sum(row["state"] not in (RUNNING, WAITING) for row in rows)
    # A running trial is half through, on the average.
    return max(0.0, total - ended - running / 2) * sum(took) / len(took) / running


def best_payload(study: optuna.Study) -> dict[str, Any]:
    """Return the best trial as the leaderboard has it; None where none has ended."""
    from ..trials.leaderboard import best_of, leaderboard

    return {"study": study.study_name, "best": best_of(leaderboard(study))}
