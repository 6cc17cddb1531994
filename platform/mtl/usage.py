"""What a training takes of the machine, under the names that MLflow shows as system metrics."""

from __future__ import annotations

import psutil


class ProcessUsage:
    """Reads what this process uses. MLflow's own monitor reads the whole machine, by a thread that
    writes on its own, so that a resumed training would have points of two lives at one step."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the clock

    def read(self) -> dict[str, float]:
        """Return processor use since the last call (percent of one core), memory now and, with
        CUDA, the most that was taken on the GPU so far (megabytes)."""
        import torch

        used = {
            "system/process_cpu_percentage": self._process.cpu_percent(),
            "system/process_memory_megabytes": self._process.memory_info().rss / 1e6,
        }
        if torch.cuda.is_initialized():
            used["system/gpu_memory_peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        return used
