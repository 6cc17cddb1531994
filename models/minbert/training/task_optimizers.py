"""AdamW on a device, whose every decision lies in tensors: nothing waits for them.

A parameter that belongs to one task moves only in that task's steps, as where its gradient is
missing otherwise: momentum and weight decay would move it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from .optimizers import AdamW


class TaskOptimizers:
    """One AdamW for what everybody trains, and one for each task's own.

    Args:
        trained: what trains, by name.
        tasks: names of tasks, by which steps name them.
        owner: whose a parameter is, by its name; None: everybody's.
        device: where they lie.

    Attributes:
        lr: float32 [], the learning rate of the next step.
        diverged: float32 [], 1 from the first step on that is not finite: nothing moves any more.
    """

    def __init__(
        self,
        trained: Mapping[str, nn.Parameter],
        tasks: Sequence[str],
        owner: Callable[[str], str | None],
        weight_decay: float,
        device: torch.device,
    ) -> None:
        self.lr, self.diverged = (torch.zeros((), device=device) for _ in range(2))
        self._still = torch.zeros(len(tasks), device=device)  # 1: a task whose own does not move
        flags = {None: self.diverged} | dict(zip(tasks, self._still.unbind(), strict=True))
        self._optimizers: list[AdamW] = []
        self._of: dict[Tensor, AdamW] = {}
        for task, flag in flags.items():
            own = [p for name, p in trained.items() if owner(name) == task]
            if own:
                optimizer = self._make(own, flag, weight_decay)
                self._optimizers.append(optimizer)
                self._of.update((p, optimizer) for p in own)

    def _make(self, own: list[nn.Parameter], flag: Tensor, weight_decay: float) -> AdamW:
        captured = self.lr.device.type == "cuda"
        made = AdamW(own, weight_decay=weight_decay, fused=True, capturable=captured)
        made.param_groups[0]["lr"] = self.lr  # not above: that would ask the device for its value
        made.found_inf = flag
        made._warned_capturable_if_run_uncaptured = True  # the first step of a shape is not
        return made

    @torch.no_grad()
    def step(self, active: Tensor, loss: Tensor) -> None:
        """Take a step, unless the loss is not finite, or another was not before.

        Args:
            active: float32 [tasks], 1 for each task that the batch has examples of.
        """
        torch.maximum(self.diverged, (~torch.isfinite(loss)).float(), out=self.diverged)
        torch.maximum(self.diverged, 1 - active, out=self._still)
        for optimizer in self._optimizers:
            optimizer.step()

    @property
    def state(self) -> _States:
        """The states of parameters, as an optimizer has them."""
        return _States(self._of)


class _States(dict[Tensor, dict[str, Tensor]]):
    def __init__(self, of: Mapping[Tensor, AdamW]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, p: Tensor) -> dict[str, Tensor]:
        return self._of[p].state[p]

    def get(self, p, default=None):
        return self._of[p].state.get(p, default)
