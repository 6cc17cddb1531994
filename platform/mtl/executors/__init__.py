"""Who runs trials: the contract (`Executor`) and its implementations, by name."""

from __future__ import annotations

from minbert import InputError

from .base import Executor
from .needs import Needs, Places, default_jobs, threads_for
from .ray_environment import settle_ray

EXECUTORS = ("local", "ray")

__all__ = [
    "EXECUTORS",
    "Executor",
    "Needs",
    "Places",
    "default_jobs",
    "open_executor",
    "threads_for",
]


def open_executor(name: str, needs: Needs, places: Places) -> Executor:
    """Start an executor.

    Args:
        name: one of EXECUTORS.

    Raises:
        InputError: there is no such executor, or it cannot do what is needed.
    """
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(needs, places)
    if name == "ray":
        settle_ray()
        from .ray import RayExecutor

        return RayExecutor(needs, places)
    raise InputError(f"unknown executor {name!r}; known: {', '.join(EXECUTORS)}")
