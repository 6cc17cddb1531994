"""Dropout by a device's own kernels and random numbers; nothing here waits for the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..common.streams import derive_seed
from .dropout import Dropout, check_size, keeping


def make_dropout(seed: int, device: torch.device) -> Dropout:
    """Return the dropout of a training on ``device``."""
    if device.type == "cpu":
        return Dropout(seed)
    return CudaDropout(seed, device) if device.type == "cuda" else DeviceDropout(seed)


class DeviceDropout(Dropout):
    """Dropout from a device's default generator.

    That is one for all of a process, as torch's attention draws from no other.
    """

    def __init__(self, seed: int) -> None:
        self._generator = self._default()
        self._ahead: Iterator[Tensor] = iter(())
        self.begin(seed)

    def begin(self, seed: int) -> None:
        self._generator.manual_seed(derive_seed(seed, "dropout"))

    def _default(self) -> torch.Generator:
        return torch.default_generator

    def apply(self, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        return x if rate == 0 else torch.native_dropout(x, rate, True)[0]

    def add(self, residual: Tensor, x: Tensor, rate: float, rows: int | None = None) -> Tensor:
        if rate == 0:
            return residual + x
        mask = next(self._ahead, None)
        if mask is None:
            mask = _kept(x.shape, rate, x.device)
        return _Added.apply(residual, x, mask[: len(x)], keeping(rate))

    def draw_ahead(self, additions: int, like: Tensor, rate: float) -> None:
        drawn = _kept((additions, *like.shape), rate, like.device).unbind() if rate else ()
        self._ahead = iter(drawn)

    def end_step(self) -> None:
        self._ahead = iter(())  # a last mask would keep all of them

    def state(self) -> Tensor:
        return self._generator.get_state()

    def load_state(self, state: Tensor) -> None:
        check_size(state, self.state())
        self._generator.set_state(state.cpu())


def _kept(shape: Sequence[int], rate: float, device: torch.device) -> Tensor:
    """Draw which elements dropout keeps, bool."""
    return torch.empty(shape, dtype=torch.bool, device=device).bernoulli_(1 - rate)


class _Added(torch.autograd.Function):
    """``residual + x * mask * factor`` in the residual's precision: one kernel each way."""

    @staticmethod
    def forward(ctx, residual, x, mask, factor):
        ctx.save_for_backward(mask)
        ctx.factor, ctx.dtype = factor, x.dtype
        return torch.addcmul(residual, x, mask, value=factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (mask,) = ctx.saved_tensors
        given = torch.empty_like(grad, dtype=ctx.dtype)
        # A product has no factor: this is one that has, added to nothing.
        torch.addcmul(_nothing(grad.device, grad.dtype), grad, mask, value=ctx.factor, out=given)
        return grad, given, None, None


@cache
def _nothing(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.zeros((), device=device, dtype=dtype)


class CudaDropout(DeviceDropout):
    """The same where a step may be captured in a CUDA graph.

    A captured step cannot return to an earlier state of a generator. So each repetition of a part
    has a generator of its own; they begin at the same state and draw as much, so they agree at
    every step, whether it is replayed or not.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._device = device
        super().__init__(seed)
        self._main = self._generator.graphsafe_get_state()
        self._begun = 0  # parts, in this step

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self._seed = seed
        self._parts: list[list[torch.Generator]] = []  # of each part, one for each repetition
        self._begins: list[Tensor] = []  # the state of each part when it was first drawn from

    def _default(self) -> torch.Generator:
        torch.cuda.init()
        index = self._device.index
        return torch.cuda.default_generators[
            torch.cuda.current_device() if index is None else index
        ]

    def repeatable(self) -> Callable[[], None]:
        number, taken = self._begun, 0
        self._begun += 1
        if number == len(self._parts):
            self._parts.append([])
        repetitions = self._parts[number]

        def begin() -> None:
            nonlocal taken
            if taken == len(repetitions):
                repetitions.append(self._repetition(number))
            self._generator.graphsafe_set_state(repetitions[taken])
            taken += 1

        return begin

    def _repetition(self, number: int) -> torch.Generator:
        """Make a part's next generator: all are made in the first step, which is not captured."""
        made = torch.Generator(self._device)
        if number == len(self._begins):
            made.manual_seed(derive_seed(self._seed, "dropout", "part", number))
            self._begins.append(made.get_state())
        made.set_state(self._begins[number])
        return made

    def end_step(self) -> None:
        super().end_step()
        self._generator.graphsafe_set_state(self._main)
        self._begun = 0

    def renew(self) -> None:
        self._main = self._main.clone_state()
        self._parts = [[each.clone_state() for each in part] for part in self._parts]
        self.end_step()

    def generators(self) -> list[torch.Generator]:
        return [generator for part in self._parts for generator in part]

    def state(self) -> Tensor:
        """Return the stream's state and those of the parts: 16 bytes each."""
        return torch.cat([each.get_state() for each in (self._main, *(p[0] for p in self._parts))])

    def load_state(self, state: Tensor) -> None:
        own, *self._begins = state.cpu().split(len(self._main.get_state()))
        check_size(own, self._main.get_state())
        self._main.set_state(own)
        self._parts = []
