"""LoRA (Hu et al. 2021) as the paper runs it: h = W0 x + alpha B A x (equation 2).

It sits on query, key, value, both feed-forward linears of every layer, and on the heads; not on the
attention output projection, not on the pooler. ``alpha`` multiplies directly: it is not divided by
the rank. A is Gaussian with standard deviation 1/sqrt(r), B is zero, so training starts at W0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..common.streams import generator
from ..model.encoder import Adapter, Encoder, EncoderShape, Linear, split_queries

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

    def forward(self, weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
        """Return ``W x + bias + alpha B A x``, [T, inputs] -> [T, outputs]; W is frozen."""
        return _beside_all_rows(x, self.alpha, weight, bias, self.a, self.b)

    @torch.no_grad()
    def merged(self, weight: Tensor) -> Tensor:
        """Return W0 + alpha B A, [outputs, inputs], in memory of its own and without gradient."""
        out = torch.empty_like(weight)
        places = zip(out.chunk(len(self.a)), weight.chunk(len(self.a)), strict=True)
        for (to, given), a, b in zip(places, self.a, self.b, strict=True):
            torch.addmm(given, b, a, alpha=self.alpha, out=to)
        return out


class LoraFunction(torch.autograd.Function):
    """A frozen linear map and the low-rank one beside it, W x + bias + alpha B A x.

    Autograd's own chain multiplies thin matrices in the layouts that a processor likes least (a
    gradient of B took six times as long), and adds two gradients of x in a pass of their own.
    Shapes: A [P, r, I], B [P, O / P, r]; x [T, I] -> [T, O]. Products run in the weight's
    precision.

    Rows may be of several trainings: the frozen map is one over all of them, and beside it are
    each training's own matrices over its own rows, so that nothing of one reaches another.

    Args:
        spans: where each training's rows begin and end.
        alphas: of each. matrices: A and B of the first, of the second, and so on.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, spans, alphas, *matrices):
        kept = x.to(weight.dtype)
        out = F.linear(kept, weight, bias)
        saved = []
        each = zip(spans, alphas, matrices[::2], matrices[1::2], strict=True)
        for (start, stop), alpha, a, b in each:
            saved += _add_low_rank(out[start:stop], kept[start:stop], a, b, alpha)
        ctx.save_for_backward(kept, weight, *saved)
        ctx.spans, ctx.alphas, ctx.dtype = spans, alphas, x.dtype
        ctx.shapes, ctx.dtypes = [b.shape for b in matrices[1::2]], [m.dtype for m in matrices]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, *saved = ctx.saved_tensors
        x_grad = grad @ weight if ctx.needs_input_grad[0] else None
        found = []
        each = zip(ctx.spans, ctx.alphas, ctx.shapes, strict=True)
        for number, ((start, stop), alpha, shape) in enumerate(each):
            own = None if x_grad is None else x_grad[start:stop]
            low_rank = saved[3 * number : 3 * number + 3]
            rows = grad[start:stop], own, x[start:stop]
            found += _low_rank_gradients(*rows, low_rank, shape, alpha)
        x_grad = None if x_grad is None else x_grad.to(ctx.dtype)
        matrices = (g.to(dtype) for g, dtype in zip(found, ctx.dtypes, strict=True))
        return x_grad, None, None, None, None, *matrices


def _beside_all_rows(
    x: Tensor, alpha: float, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor
) -> Tensor:
    """Apply :class:`LoraFunction` with one training's matrices."""
    return LoraFunction.apply(x, weight, bias, [(0, len(x))], [alpha], a, b)


def _on_processor(t: Tensor) -> bool:
    """Whether thin products run on a processor, which likes other layouts than a GPU."""
    return t.device.type == "cpu"


def _add_low_rank(
    out: Tensor, x: Tensor, a: Tensor, b: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add alpha B A x to ``out``, [T, O]; return A and B as they were used, and A x.

    A processor likes one product with the parts' B on a diagonal, and alpha within; a GPU would
    make that matrix by a kernel for each part, and multiplies all parts at once.
    """
    parts, outputs, rank = b.shape
    down = a.flatten(0, 1).to(out.dtype)  # [P * r, I]
    low = F.linear(x, down)
    if _on_processor(out):
        each = (alpha * b).transpose(1, 2)
        up = each[0] if parts == 1 else torch.block_diag(*each)
        up = up.to(out.dtype).contiguous()  # [P * r, O]
        out.addmm_(low, up)
    else:
        up = b.to(out.dtype)
        lows = low.view(-1, parts, rank).transpose(0, 1)
        by_part = out.view(-1, parts, outputs).transpose(0, 1)
        by_part.baddbmm_(lows, up.transpose(1, 2), alpha=alpha)
    return down, up, low


def _low_rank_gradients(
    grad: Tensor,
    x_grad: Tensor | None,
    x: Tensor,
    low_rank: Sequence[Tensor],
    shape: tuple[int, int, int],
    alpha: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of A and B, and add what they make to that of x.

    Args:
        grad: of the output, [T, O]. low_rank: what :func:`_add_low_rank` returned.
        shape: of B.
    """
    down, up, low = low_rank
    parts, outputs, rank = shape
    lows, grads = low.view(-1, parts, rank), grad.reshape(-1, parts, outputs)
    low_grad = _low_gradient(grads, up, alpha)
    if x_grad is not None:
        x_grad.addmm_(low_grad, down)
    return (low_grad.T @ x).view(parts, rank, -1), _b_gradient(lows, grads, alpha)


def _low_gradient(grads: Tensor, up: Tensor, alpha: float) -> Tensor:
    """Return the gradient of ``low``, [T, P * r], from that of the output, [T, P, O / P]."""
    if _on_processor(grads):
        return F.linear(grads.flatten(1), up)
    tokens, parts, _ = grads.shape
    low_grad = grads.new_empty(tokens, parts, up.shape[2])
    _scaled_bmm(alpha, grads.transpose(0, 1), up, out=low_grad.transpose(0, 1))
    return low_grad.flatten(1)


def _b_gradient(lows: Tensor, grads: Tensor, alpha: float) -> Tensor:
    """Return the gradient of B, [P, O / P, r], from ``low`` and the gradient of the output."""
    if _on_processor(grads):
        return torch.bmm(lows.permute(1, 2, 0), grads.transpose(0, 1)).transpose(1, 2) * alpha
    return _scaled_bmm(alpha, grads.permute(1, 2, 0), lows.transpose(0, 1))


def _scaled_bmm(alpha: float, a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Return alpha a b. Only a product that is added has a factor: here, to nothing."""
    return torch.baddbmm(_nothing(a.device, a.dtype), a, b, beta=0, alpha=alpha, out=out)


@cache
def _nothing(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.zeros((1, 1, 1), device=device, dtype=dtype)


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

    def beside(self, layer: int, site: str) -> LowRank:
        """Return the matrices beside a linear map of a layer."""
        return cast("Mapping[str, LowRank]", self.layers[layer])[site]

    def beside_head(self, task: str) -> LowRank:
        """Return the matrices beside the head of a task."""
        return cast(LowRank, self.heads[task])

    def initialise(self, seed: int) -> None:
        """Draw every A from a stream of its own, so that no site moves another's."""
        for name, module in self.named_modules():
            if isinstance(module, LowRank):
                module.initialise(generator(seed, "lora", name))

    def linear(self, layer: int, site: str, linear: Linear, x: Tensor) -> Tensor:
        if site not in SITES:
            return linear(x)
        return self.beside(layer, site).forward(linear.weight, linear.bias, x)

    def cls_queries(
        self, layer: int, linear: Linear, x: Tensor, cls: Tensor
    ) -> tuple[Tensor, Tensor]:
        site = self.beside(layer, "qkv")
        joint = linear.weight, linear.bias, site.a, site.b
        query, others = zip(*(split_queries(each) for each in joint), strict=True)
        return (
            _beside_all_rows(cls, site.alpha, *query),
            _beside_all_rows(x, site.alpha, *others),
        )

    def head(self, task: str, linear: Linear, x: Tensor) -> Tensor:
        return self.beside_head(task).forward(linear.weight, linear.bias, x)

    def all_heads(self, linears: Mapping[str, Linear], x: Tensor) -> Tensor:
        return torch.cat([self.head(task, linear, x) for task, linear in linears.items()], 1)

    def pairs(
        self, encoder: Encoder, heads: Mapping[str, Linear]
    ) -> Iterator[tuple[Linear, LowRank]]:
        """Yield each linear map that carries LoRA, with its matrices."""
        for index, layer in zip(range(len(self.layers)), encoder.layers, strict=True):
            for site in SITES:
                yield getattr(layer, site), self.beside(index, site)
        for task in self.heads:
            yield heads[task], self.beside_head(task)
