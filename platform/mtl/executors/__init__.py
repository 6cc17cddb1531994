"""Who runs trials: the contract (`Executor`) and its implementations, by name."""

from __future__ import annotations

from pathlib import Path

from minbert import InputError

from .base import Executor

EXECUTORS = ("local",)

__all__ = ["EXECUTORS", "Executor", "open_executor"]


def open_executor(name: str, *, jobs: int, logs: Path) -> Executor:
    """Start an executor.

    Args:
        name: one of EXECUTORS.
        jobs: trials at the same time.
        logs: folder for what the workers print.

    Raises:
        InputError: there is no such executor.
    """
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(jobs, logs)
    raise InputError(f"unknown executor {name!r}; known: {', '.join(EXECUTORS)}")
