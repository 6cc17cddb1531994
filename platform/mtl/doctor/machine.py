"""The machine: cores, memory, GPU, and whether it multiplies bfloat16."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..executors.resources import threads_for
from .checks import Check, bad, note, ok, said

_CGROUP = Path("/sys/fs/cgroup")
_LITTLE, _NOTHING = 2e9, 0.7e9  # bytes; a worker on the demo takes some 0.6 GB
_CUDA = "pip install torch, without the index of its CPU build"


def cores(cgroup: Path = _CGROUP) -> Iterator[Check]:
    """Say how many cores trainings may use."""
    count = threads_for(1)
    given = os.environ.get("OMP_NUM_THREADS")
    found = f"{count}" + (f" (OMP_NUM_THREADS={given})" if given else "")
    share = _share(cgroup)
    if share is not None and share < count:
        jobs = max(1, int(share))
        mend = f"mtl study run ... --jobs {jobs}, and OMP_NUM_THREADS=1"
        yield note("cores", f"{found}, but this container may use {share:g} of them", mend)
    else:
        yield ok("cores", found)


def _share(cgroup: Path) -> float | None:
    """Return how many cores' time a container may use; None where it is not limited."""
    text = _read(cgroup / "cpu.max").split()
    return int(text[0]) / int(text[1]) if len(text) == 2 and text[0].isdigit() else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""


def memory(cgroup: Path = _CGROUP) -> Iterator[Check]:
    """Say how much memory is free, to this container if it has a limit."""
    import psutil

    free = psutil.virtual_memory().available
    limit, used = (_read(cgroup / name).strip() for name in ("memory.max", "memory.current"))
    if limit.isdigit() and used.isdigit():
        free = min(free, int(limit) - int(used))
    found, mend = f"{free / 1e9:.1f} GB free", "end what holds it, or: mtl study run ... --jobs 1"
    if free < _NOTHING:
        yield bad("memory", found, mend)
    elif free < _LITTLE:
        yield note("memory", found, mend)
    else:
        yield ok("memory", found)


def gpu(device: str) -> Iterator[Check]:
    """Say what ``train.device`` means here, and in which precision it multiplies.

    Raises:
        InputError: a device is asked for that is not here.
    """
    try:
        import torch

        from minbert.device import has_bfloat16, pick_device
    except (ImportError, OSError) as error:
        mend = "pip install --force-reinstall -c constraints.txt torch"
        yield bad("torch", f"cannot be loaded: {said(error)}", mend)
        return
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield ok("gpu", f"{len(names)}: {', '.join(dict.fromkeys(names))}")
    elif shutil.which("nvidia-smi") is None:
        yield ok("gpu", "none; trains on the processor")
    elif torch.version.cuda is None:
        yield note("gpu", f"torch {torch.__version__} cannot use it: a CPU build", _CUDA)
    else:
        yield note("gpu", "torch finds no CUDA", "nvidia-smi says whether the driver works")
    if has_bfloat16(pick_device(device)):
        yield ok("bfloat16", "in hardware; train.precision = auto takes it")
    else:
        yield ok("bfloat16", "not in hardware; train.precision = auto takes float32")
