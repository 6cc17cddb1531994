"""Steps as CUDA graphs: what a step gives a GPU to do is recorded once for each shape, and then
given at once. The host, which needs several times as long as the GPU for a step, drops out.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable
from functools import cache

import torch


class StepGraphs:
    """Runs steps, each of a key that stands for its shape: the first of a key as it is, those that
    follow as a graph, which is captured at the second.

    So a shape that comes once costs nothing, and what a step sets up once is set up before.

    Args:
        generators: those that steps draw from, beside the device's own.
        renew: replaces all of them by others in the same state.
        on: whether there shall be graphs, where there can be.

    Attributes:
        captured: how many graphs there are. seconds: that capturing took.
        notices: in a line each, what makes steps slower than they would be.
    """

    def __init__(
        self,
        device: torch.device,
        generators: Callable[[], list[torch.Generator]],
        renew: Callable[[], None],
        on: bool = True,
    ) -> None:
        self._generators, self._renew = generators, renew
        self._device = device
        self._on = on and device.type == "cuda"
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self.seconds = 0.0
        self.notices: list[str] = []
        if device.type == "cuda":
            # Nothing can be captured on the default stream. All of a training runs on one, so that
            # its memory is one pool, and nothing has to wait for another stream.
            if device.index is not None:  # the present one has none, and set_device wants one
                torch.cuda.set_device(device)
            stream = _stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            torch.cuda.set_stream(stream)
        if self._on:
            self._pool = torch.cuda.graph_pool_handle()

    @property
    def captured(self) -> int:
        return len(self._graphs)

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Take a step: the same operations, on the same memory, as every other of its key."""
        if key in self._graphs:
            self._graphs[key].replay()
        elif not self._on or key not in self._seen or not self._capture(key, step):
            self._seen.add(key)
            step()
        else:
            self._graphs[key].replay()

    def _capture(self, key: Hashable, step: Callable[[], None]) -> bool:
        """Record a step, which is not taken by that; say whether it could be recorded."""
        begin = time.perf_counter()
        graph = torch.cuda.CUDAGraph()
        collects = gc.isenabled()
        gc.disable()  # what it frees might be another graph
        try:
            for generator in self._generators():
                graph.register_generator_state(generator)
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=torch.cuda.current_stream(self._device),
                capture_error_mode="thread_local",
            ):
                step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._give_up(error)
            return False
        finally:
            if collects:
                gc.enable()
        self._graphs[key] = graph
        self.seconds += time.perf_counter() - begin
        return True

    def _give_up(self, error: RuntimeError) -> None:
        self._on = False
        self._graphs.clear()
        self._renew()  # torch before 2.13 takes them for captured still
        self.notices.append(
            "steps are not captured as CUDA graphs, which makes them slower: "
            f"{' '.join(str(error).split())[:200]}"
        )


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of this process' trainings: for each one cuBLAS keeps memory for ever."""
    return torch.cuda.Stream(device)
