"""What a training's last bits depend on beside its configuration: who adds up, in what order."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch

_GROSS = ("device", "precision")  # of what differs more than in the last bits


def arithmetic(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Return what must stay as it is for a training on a processor to go on bit for bit.

    On a GPU sums are not repeated to the bit anyway: then it is the GPU.
    """
    facts = {"device": device.type, "precision": str(dtype).removeprefix("torch.")}
    if device.type == "cuda":
        return facts | {"GPU": torch.cuda.get_device_name(device)}
    return facts | {
        "threads": str(torch.get_num_threads()),
        "processor": f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Say in a line what has changed since a checkpoint was written; None if nothing has."""
    changed = [key for key in now if key in before and before[key] != now[key]]
    if not changed:
        return None
    words = "; ".join(f"{key}: {now[key]}, was {before[key]}" for key in changed)
    if "device" in changed:
        words += "; dropout begins another random stream"
    bits = "" if set(changed) & set(_GROSS) else " in their last bits"
    return (
        f"it goes on by another arithmetic ({words}): its numbers may differ{bits} from those of a "
        "training without a break"
    )


@cache
def _processor() -> str:
    """Name the processor: libraries choose their kernels by its maker and its caches."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
