"""Weights in the precision that products run in, beside those that are trained.

Masters stay float32. Their copies are made all at once, where autocast would make each for itself
in every forward pass, and cast each gradient back by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call


class ProductWeights:
    """Copies of a model's weights for a training, and the way back for their gradients.

    Args:
        model: what is trained.
        names: which of its parameters enter products.
        dtype: what products run in; where that is the parameters' own, nothing is copied.

    Attributes:
        frozen: the copies of what does not train, by name.
    """

    def __init__(self, model: nn.Module, names: Iterable[str], dtype: torch.dtype) -> None:
        self._model = model
        wanted = set(names)
        chosen = {n: p for n, p in model.named_parameters() if n in wanted and p.dtype != dtype}
        self._masters: list[Tensor] = [p for p in chosen.values() if p.requires_grad]
        self._copies: dict[str, Tensor] = {}
        for name, p in chosen.items():
            copy = p.detach().to(dtype)
            self._copies[name] = copy.requires_grad_() if p.requires_grad else copy
        self._trained = [copy for copy in self._copies.values() if copy.requires_grad]
        self.frozen = {name: t for name, t in self._copies.items() if not t.requires_grad}

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the copies of what trains to its present values."""
        if self._trained:
            torch._foreach_copy_(self._trained, self._masters)

    def within(self, function: Callable[[], Tensor]) -> Tensor:
        """Call what runs the model: it finds the copies in the place of the parameters."""
        return with_weights(self._model, self._copies, function)

    @torch.no_grad()
    def collect(self) -> None:
        """Turn the copies' gradients into the parameters' own, float32."""
        into, found = [], []
        for p, copy in zip(self._masters, self._trained, strict=True):
            if copy.grad is not None:
                p.grad = torch.empty_like(p)
                into.append(p.grad)
                found.append(copy.grad)
        if found:
            torch._foreach_copy_(into, found)
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the copies' gradients."""
        for copy in self._trained:
            copy.grad = None


def with_weights(
    model: nn.Module, weights: Mapping[str, Tensor], function: Callable[[], Tensor]
) -> Tensor:
    """Call what runs a model, with tensors in the place of some of its parameters, by name."""
    if not weights:
        return function()
    named = {f"model.{name}": weight for name, weight in weights.items()}
    return functional_call(_Calling(model), named, (function,))


class _Calling(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def fork(h: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return ``h`` twice: as it is, and for products in ``dtype``; any shape.

    Where both ways' gradients meet, that of the products is added as it is: it is not brought to
    the precision of ``h`` in a pass of its own.
    """
    if h.dtype == dtype:
        return h, h
    return _Fork.apply(h, dtype) if h.requires_grad else (h, h.to(dtype))


class _Fork(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h, dtype):
        return h.view_as(h), h.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, of_products):
        return grad + of_products, None
