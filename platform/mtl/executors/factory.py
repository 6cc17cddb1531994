"""Executors by name: who runs trials."""

from __future__ import annotations

from minbert import InputError

from .base import Executor
from .ray_environment import settle_ray
from .resources import Folders, Resources

EXECUTORS = ("local", "ray")


def open_executor(name: str, resources: Resources, folders: Folders) -> Executor:
    """Start an executor.

    Args:
        name: one of EXECUTORS.

    Raises:
        InputError: there is no such executor, or it cannot do what is needed.
    """
    if name == "local":
        from .local import LocalExecutor

        return LocalExecutor(resources, folders)
    if name == "ray":
        if resources.cohort > 1:
            raise InputError(
                f"--cohort {resources.cohort} is for workers of this machine as yet: with "
                "--executor ray every trial is a task of its own; leave --cohort out"
            )
        settle_ray()
        from .ray import RayExecutor

        return RayExecutor(resources, folders)
    raise InputError(f"unknown executor {name!r}; known: {', '.join(EXECUTORS)}")
