"""Adapters of several trainings that share a pass over one frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..model.encoder import Adapter, Linear, split_queries
from ..packing.joined import Joined
from .lora import SITES, Lora, LoraFunction


class JoinedLora(Adapter):
    """LoRA of each batch of a joined one, on its own rows; None where there is none.

    Heads are each training's own business.
    """

    def __init__(self, adapters: Sequence[Lora | None], joined: Joined) -> None:
        self._adapters, self._joined = adapters, joined

    def linear(self, layer: int, site: str, linear: Linear, x: Tensor) -> Tensor:
        if site not in SITES:
            return linear(x)
        beside = [None if each is None else each.beside(layer, site) for each in self._adapters]
        given = [None if each is None else (each.alpha, each.a, each.b) for each in beside]
        return self._apply(x, linear.weight, linear.bias, given)

    def cls_queries(
        self, layer: int, linear: Linear, x: Tensor, cls: Tensor
    ) -> tuple[Tensor, Tensor]:
        weights, biases = split_queries(linear.weight), split_queries(linear.bias)
        beside = [None if each is None else each.beside(layer, "qkv") for each in self._adapters]
        halves = [
            [None if s is None else (s.alpha, split_queries(s.a)[i], split_queries(s.b)[i])
             for s in beside]
            for i in range(2)
        ]  # fmt: skip
        return (
            self._apply(cls, weights[0], biases[0], halves[0]),
            self._apply(x, weights[1], biases[1], halves[1]),
        )

    def _apply(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        given: Sequence[tuple[float, Tensor, Tensor] | None],
    ) -> Tensor:
        """Apply a frozen map, and alpha, A and B of each training that has some."""
        each = zip(self._joined.spans(len(x)), given, strict=True)
        own = [(span, *matrices) for span, matrices in each if matrices is not None]
        spans, alphas = [part[0] for part in own], [part[1] for part in own]
        matrices = [t for part in own for t in part[2:]]
        return LoraFunction.apply(x, weight, bias, spans, alphas, *matrices)
