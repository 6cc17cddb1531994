"""Numbers on their way from a device, read some at a time, when they are there."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

_TOGETHER = 4  # values that one event stands for
_AHEAD = 2  # groups that may be on their way before one is waited for


class LateValues:
    """Numbers that a device computes, in order.

    Whoever adds more than a dozen before the first is there waits: the device has enough to do.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._groups: deque[_Group] = deque()
        self._open = self._new()

    def _new(self) -> _Group:
        return _Group(self._device.type == "cuda")

    def add(self, value: Tensor) -> None:
        """Add a number, float32 []; what is written to the tensor later does not change it."""
        self._open.add(value)
        if self._open.count == _TOGETHER:
            self._close()

    def _close(self) -> None:
        self._open.close()
        self._groups.append(self._open)
        self._open = self._new()

    def take(self, wait: bool) -> list[float]:
        """Return the numbers that are there and were not returned before.

        Args:
            wait: for all that were added.
        """
        if self._open.count and (wait or self._device.type != "cuda"):
            self._close()
        found: list[float] = []
        while self._groups and (wait or self._groups[0].there or len(self._groups) > _AHEAD):
            found += self._groups.popleft().read()
        return found


class _Group:
    """Some numbers, in memory of the host that a device may write to."""

    def __init__(self, on_gpu: bool) -> None:
        self._values = torch.zeros(_TOGETHER, pin_memory=on_gpu)
        self._event = torch.cuda.Event() if on_gpu else None
        self.count = 0

    def add(self, value: Tensor) -> None:
        self._values[self.count].copy_(value, non_blocking=True)
        self.count += 1

    def close(self) -> None:
        if self._event is not None:
            self._event.record()

    @property
    def there(self) -> bool:
        return self._event is None or self._event.query()

    def read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return self._values[: self.count].tolist()
