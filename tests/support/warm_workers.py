"""A worker process that outlives its study: the next one has no libraries to wait for."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mtl.executors.local import LocalExecutor
from mtl.worker.messages import SILENCE

_start, _close = LocalExecutor._start, LocalExecutor.close


@contextmanager
def kept_warm() -> Iterator[None]:
    """Have the studies that run in this process, one after another, use one worker process."""
    resting: list[tuple] = []  # the worker without a study, and since when

    def start(self: LocalExecutor, slot: int) -> None:
        worker, since = resting.pop() if resting else (None, 0.0)
        if worker is not None and time.monotonic() - since < SILENCE / 2:
            self._slots[slot] = worker
            return
        _end(worker)  # it may just be leaving, since nobody speaks to it
        _start(self, slot)

    def close(self: LocalExecutor) -> None:
        for slot, worker in list(self._slots.items()):
            if worker.number is None and not resting:
                resting.append((self._slots.pop(slot), time.monotonic()))
        _close(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalExecutor, "_start", start)
        patch.setattr(LocalExecutor, "close", close)
        yield
    for worker, _ in resting:
        _end(worker)


def _end(worker) -> None:
    if worker is not None:
        worker.connection.close()
        worker.process.kill()
        worker.process.wait()
