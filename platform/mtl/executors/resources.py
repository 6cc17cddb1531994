"""What trials need of where they run."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_MOST = 4  # workers by default on processors: each holds a model and an optimizer


@dataclass(frozen=True)
class Resources:
    """What is asked of an executor.

    Attributes:
        jobs: workers; None: as many as suit the machine or the cluster.
        most: there are no more trials than these.
        cpus, gpus: of one trial, for executors that hand them out; None: see each executor. A
            fraction of a GPU shares it.
        cohort: trials at the same time in each worker.
    """

    jobs: int | None = None
    most: int | None = None
    cpus: float | None = None
    gpus: float | None = None
    cohort: int = 1

    def width(self, suited: int) -> int:
        """Trials at the same time, however many there are."""
        return self._asked(suited) * self.cohort

    def workers(self, suited: int) -> int:
        """Workers, no more than there are trials."""
        return min(self._asked(suited), self.most or self._asked(suited))

    def places(self, suited: int) -> int:
        """Trials at the same time in each worker, no more than it can ever have."""
        most = self.most or self.width(suited)
        return min(self.cohort, math.ceil(most / self.workers(suited)))

    def _asked(self, suited: int) -> int:
        return self.jobs or max(1, suited)


@dataclass(frozen=True)
class Folders:
    """Where things lie that workers read and write.

    Attributes:
        home: checkpoints, caches, outboxes and logs are in it.
        inputs: folders with data and weights.
        tracking_uri: MLflow's store.
    """

    home: Path
    logs: Path
    tracking_uri: str
    inputs: tuple[Path, ...] = ()


def default_jobs() -> int:
    """How many trials at a time suit this machine: one a GPU, else one a core up to four."""
    return len(visible_gpus()) or min(cores(), _MOST)


def default_cohort() -> int:
    """How many trials at a time suit a worker: one, until it is measured where more are quicker."""
    return 1


def threads_for(jobs: int) -> int:
    """Processor threads for each of `jobs` trials; OMP_NUM_THREADS, if it is set, is the most."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    share = cores() // jobs
    return max(1, min(share, int(given)) if given.isdecimal() else share)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """The GPUs that torch sees, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(i) for i in range(torch.cuda.device_count())]
