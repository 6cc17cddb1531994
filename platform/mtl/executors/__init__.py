"""Who runs trials: the contract (`Executor`) and its implementations, by name."""

from __future__ import annotations

import os
from pathlib import Path

from minbert import InputError

from .base import Executor

EXECUTORS = ("local",)
_MOST = 4  # workers by default on processors: each holds a model and an optimizer

__all__ = ["EXECUTORS", "Executor", "default_jobs", "open_executor", "threads_for", "visible_gpus"]


def default_jobs() -> int:
    """How many trials at a time suit this machine: one a GPU, else one a core up to four."""
    return len(visible_gpus()) or min(_cores(), _MOST)


def threads_for(jobs: int) -> int:
    """Processor threads for each of `jobs` trials; OMP_NUM_THREADS, if it is set, is the most."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    share = _cores() // jobs
    return max(1, min(share, int(given)) if given.isdecimal() else share)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]


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
