"""How long a GPU works for a step of ours, and in how many kernels: as torch's profiler sees it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import partial

import torch
from gpu_clock import Clock
from gpu_ours import Ours, memory_of, ways
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

_COPIES = ("Memcpy", "Memset")  # which are no kernels
_TRIES = 3


def measure_busy(options, clock: Clock, say) -> dict:
    """Count kernels and their time, of steps as graphs and not."""
    found: dict = {"full": {}, "lora": {}}
    for recipe in found:
        for way, graphs in ways(options).items():
            name = f"busy, {recipe}, {way}"
            told = clock.attempt(name, partial(_busy, options, recipe, graphs, clock))
            if told is not None:
                found[recipe][way] = told
                say(f"{name}: {told['busy_ms']:.2f} ms in {told['kernels']:.0f} kernels")
    return found


def _busy(options, recipe: str, graphs: bool, clock: Clock) -> dict:
    steps = max(1, options.steps // 4)
    if options.device.type == "cuda":  # graphs want a profiler that was there before, and stays
        os.environ |= {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}
        with _profiler(options.device):
            pass
    with memory_of(options):
        ours = Ours(options, recipe, graphs)
        ours.warm_up(options.steps if graphs else steps, clock)
        for _ in range(_TRIES):
            before = ours.captured()
            events = _profiled(ours, steps)
            if ours.captured() == before:  # nothing was captured within it
                break
    if not events:
        raise RuntimeError("torch's profiler sees nothing of this device")
    return summary(events, steps)


def _profiler(device: torch.device) -> profile:
    cuda = device.type == "cuda"
    return profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU])


def _profiled(ours: Ours, steps: int) -> list:
    """Return what the device did in some steps; on a CPU, the operations that torch called."""
    device = ours.trainer.device
    with _profiler(device) as watched:
        ours.take(steps)
    wanted = DeviceType.CUDA if device.type == "cuda" else DeviceType.CPU
    events = watched.events() or []
    return [e for e in events if e.device_type == wanted and not e.is_user_annotation]


def summary(events: Iterable, steps: int) -> dict:
    """Return, for a step, the kernels, the copies, the ms in which any of them ran, and the
    kernels that took most of it."""
    events = list(events)
    spans = sorted((e.time_range.start, e.time_range.end) for e in events)
    busy, reached = 0.0, float("-inf")
    for begin, end in spans:  # some run at the same time
        busy += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    copies = sum(e.name.startswith(_COPIES) for e in events)
    longest: Counter[str] = Counter()
    for e in events:
        longest[e.name[:80]] += (e.time_range.end - e.time_range.start) / steps / 1e3
    return {
        "busy_ms": busy / steps / 1e3,
        "kernels": (len(events) - copies) / steps,
        "copies": copies / steps,
        "longest_ms": dict(longest.most_common(12)),
    }
