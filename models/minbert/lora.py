"""LoRA (Hu et al. 2021) as the paper runs it: h = W0 x + alpha B A x (equation 2).

It sits on query, key, value, both feed-forward linears of every layer, and on the heads; not on the
attention output projection, not on the pooler. ``alpha`` multiplies directly: it is not divided by
the rank. A is Gaussian with standard deviation 1/sqrt(r), B is zero, so training starts at W0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import Adapter, Encoder, EncoderShape
from .noise import generator

SITES = ("qkv", "intermediate", "output")  # of each layer


class LowRank(nn.Module):
    """The matrices A and B beside one linear map, or beside several that share their input.

    Shapes: ``a`` [parts, rank, inputs], ``b`` [parts, outputs, rank]; parts is 3 for the joint
    query, key and value map and 1 elsewhere.
    """

    def __init__(self, inputs: int, outputs: int, rank: int, alpha: float, parts: int = 1) -> None:
        super().__init__()
        self.alpha = alpha
        self.a = nn.Parameter(torch.empty(parts, rank, inputs))
        self.b = nn.Parameter(torch.zeros(parts, outputs // parts, rank))

    def initialise(self, stream: torch.Generator) -> None:
        """Draw A, and set B to zero."""
        nn.init.normal_(self.a, std=1 / math.sqrt(self.a.shape[1]), generator=stream)
        nn.init.zeros_(self.b)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """Return ``out + alpha B A x``: out [T, outputs], x [T, inputs].

        ``out`` is overwritten: at the width of a feed-forward layer, another tensor costs more than
        both products.
        """
        low = F.linear(x, self.a.flatten(0, 1))  # [T, parts * rank]
        b = self.b[0] if len(self.b) == 1 else torch.block_diag(*self.b)
        return out.addmm_(low, (self.alpha * b).T.to(low.dtype))

    def delta(self) -> Tensor:
        """Return alpha B A, [outputs, inputs]: what is added to W0."""
        return self.alpha * (self.b @ self.a).flatten(0, 1)


class Lora(nn.Module, Adapter):
    """LoRA on a whole model: one :class:`LowRank` a site of each layer, and one a head."""

    def __init__(
        self, shape: EncoderShape, heads: Mapping[str, int], rank: int, alpha: float
    ) -> None:
        super().__init__()
        hidden, inner = shape.hidden_size, shape.intermediate_size
        self.rank, self.alpha = rank, alpha
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "qkv": LowRank(hidden, 3 * hidden, rank, alpha, parts=3),
                    "intermediate": LowRank(hidden, inner, rank, alpha),
                    "output": LowRank(inner, hidden, rank, alpha),
                }
            )
            for _ in range(shape.layers)
        )
        self.heads = nn.ModuleDict(
            {task: LowRank(hidden, outputs, rank, alpha) for task, outputs in heads.items()}
        )

    def initialise(self, seed: int) -> None:
        """Draw every A from a stream of its own, so that no site moves another's."""
        for name, module in self.named_modules():
            if isinstance(module, LowRank):
                module.initialise(generator(seed, "lora", name))

    def linear(self, layer: int, site: str, linear: nn.Linear, x: Tensor) -> Tensor:
        return self.layers[layer][site].add_to(linear(x), x)

    def head(self, task: str, linear: nn.Linear, x: Tensor) -> Tensor:
        return self.heads[task].add_to(linear(x), x)

    def merged(self, encoder: Encoder, heads: Mapping[str, nn.Linear]) -> Adapter:
        """Return an adapter that computes the same with one product a site (W0 + alpha B A)."""
        weights = {
            id(linear): linear.weight + low_rank.delta()
            for linear, low_rank in self.pairs(encoder, heads)
        }
        return _Merged(weights)

    def pairs(self, encoder: Encoder, heads: Mapping[str, nn.Linear]):
        """Yield each linear map that carries LoRA, with its matrices."""
        for layer, sites in zip(encoder.layers, self.layers, strict=True):
            for site in SITES:
                yield getattr(layer, site), sites[site]
        for task, low_rank in self.heads.items():
            yield heads[task], low_rank


class _Merged(Adapter):
    """LoRA folded into copies of the weights; the weights themselves stay as they are."""

    def __init__(self, weights: dict[int, Tensor]) -> None:
        self._weights = weights

    def linear(self, layer: int, site: str, linear: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[id(linear)], linear.bias)

    def head(self, task: str, linear: nn.Linear, x: Tensor) -> Tensor:
        return F.linear(x, self._weights[id(linear)], linear.bias)
