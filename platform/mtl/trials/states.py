"""The states of a trial and of its run: in our words, from Optuna's, and in MLflow's."""

from __future__ import annotations

COMPLETE = "complete"
PRUNED = "pruned"
FAILED = "failed"
RUNNING = "running"
WAITING = "waiting"
"""Queued by a person, and not asked for yet."""
UNFINISHED = "unfinished"
"""Running by Optuna's word, and nobody works on it."""
KILLED = "killed"
"""Of a run: interrupted, and to be gone on with."""

ENDED = (COMPLETE, PRUNED, FAILED)
COUNTED = (*ENDED, RUNNING)
"""The states whose trials are counted in tables of studies."""

# In the order of the leaderboard.
FROM_OPTUNA = {
    "COMPLETE": COMPLETE,
    "PRUNED": PRUNED,
    "RUNNING": RUNNING,
    "WAITING": WAITING,
    "FAIL": FAILED,
}
TO_OPTUNA = {state: name for name, state in FROM_OPTUNA.items()}
# MLflow knows no pruning.
TO_MLFLOW = {
    RUNNING: "RUNNING",
    COMPLETE: "FINISHED",
    PRUNED: "FINISHED",
    FAILED: "FAILED",
    KILLED: "KILLED",
}

INTERRUPTED = "interrupted"
"""Why a run is killed that is to be gone on with."""


def state_word(state: str, worked_on: bool) -> str:
    """Say in what state a trial is: Optuna has a begun one RUNNING, though its study may be left.

    Args:
        state: of a row of the leaderboard.
        worked_on: whether a dispatcher has the study.
    """
    return UNFINISHED if state == RUNNING and not worked_on else state
