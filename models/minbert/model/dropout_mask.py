"""Dropout (Srivastava et al. 2014) of elements that were drawn beforehand, kept as their places.

A processor zeroes a tenth of a tensor sooner than it multiplies all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class DropoutMask:
    """The elements of one tensor that are dropped, as their places in it.

    Args:
        places: int64, ascending; they count the elements of a contiguous tensor.
    """

    def __init__(self, places: np.ndarray) -> None:
        self.places = places

    def within(self, shape: Sequence[int], wider: Sequence[int]) -> DropoutMask:
        """Return the same elements as places in a tensor padded at the end of each dimension.

        Args:
            shape: [n, rows, columns] of the tensor that they were drawn for.
            wider: the padded one's, [n, at least rows, at least columns].
        """
        if tuple(shape) == tuple(wider):
            return self
        row = self.places // shape[2]
        behind = row * (wider[2] - shape[2])  # the padding that lies before each
        behind += row // shape[1] * ((wider[1] - shape[1]) * wider[2])
        return DropoutMask(self.places + behind)

    def scaled(self, x: Tensor, factor: float) -> Tensor:
        """Return ``x * factor``, zero where dropped."""
        out = torch.mul(x, factor)
        self.clear(out)
        return out

    def added(self, residual: Tensor, x: Tensor, factor: float) -> Tensor:
        """Return ``residual + x * factor``, the residual alone where dropped."""
        out = torch.add(residual, x, alpha=factor)
        _elements(out)[self.places] = _elements(residual).take(self.places)
        return out

    def take_out(self, x: Tensor) -> np.ndarray:
        """Zero the dropped elements of ``x``; return what they were, for :meth:`put_back`."""
        taken = _elements(x).take(self.places)
        self.clear(x)
        return taken

    def put_back(self, x: Tensor, taken: np.ndarray) -> None:
        """Undo :meth:`take_out` in ``x``."""
        _elements(x)[self.places] = taken

    def clear(self, x: Tensor) -> None:
        """Zero the dropped elements of ``x``."""
        _elements(x)[self.places] = 0


def _elements(x: Tensor) -> np.ndarray:
    """Return a contiguous tensor's memory; NumPy knows no bfloat16, and its bits serve as well."""
    flat = x.detach().view(-1)
    return (flat.view(torch.int16) if flat.dtype == torch.bfloat16 else flat).numpy()


def masked(x: Tensor, dropped: DropoutMask, factor: float) -> Tensor:
    """Return ``x * factor``, zero where dropped."""
    return _Scaled.apply(x.contiguous(), dropped, factor)


def add_masked(residual: Tensor, x: Tensor, dropped: DropoutMask, factor: float) -> Tensor:
    """Return ``residual`` plus what :func:`masked` makes of ``x``, in the residual's precision.

    Both have one shape.
    """
    return _Added.apply(residual.contiguous(), x.contiguous(), dropped, factor)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dropped, factor):
        ctx.dropped, ctx.factor = dropped, factor
        return dropped.scaled(x, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return ctx.dropped.scaled(grad.contiguous(), ctx.factor), None, None


class _Added(torch.autograd.Function):
    """Autograd's own chain keeps a whole mask, and multiplies it by the factor once more."""

    @staticmethod
    def forward(ctx, residual, x, dropped, factor):
        ctx.dropped, ctx.factor, ctx.dtype = dropped, factor, x.dtype
        return dropped.added(residual, x, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        given = ctx.dropped.scaled(grad.contiguous(), ctx.factor)
        return grad, given.to(ctx.dtype), None, None
