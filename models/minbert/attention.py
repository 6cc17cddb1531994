"""Attention within each sequence of a packed stream, one block of near-equal lengths at a time.

That is for a CPU; for a GPU see :mod:`minbert.ragged`.

    T tokens   H hidden   N heads   D = H / N   n sequences of a group   L tokens of its longest
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .dropout import Places
from .noise import Noise, keeping
from .packing import Group, Ragged
from .ragged import ragged_attention


def attention(
    qkv: Tensor,
    groups: Sequence[Group] | Ragged,
    heads: int,
    rate: float = 0.0,
    noise: Noise | None = None,
    firsts: bool = False,
) -> Tensor:
    """Multi-head self-attention within each sequence (Vaswani et al. 2017, equation 1).

    Args:
        qkv: [T, 3H], the queries, keys and values of the stream.
        groups: the stream as blocks; what lies behind the last belongs to no sequence.
        rate: dropout of the attention weights, applied where there is ``noise``.
        firsts: whether only the first token of each sequence asks.

    Returns:
        The attention heads' outputs side by side: [T, H], zero where there is no sequence, or with
        ``firsts`` [sequences, H].
    """
    if isinstance(groups, Ragged):
        return ragged_attention(qkv, groups, heads, rate if noise else 0.0, firsts)
    if noise and rate > 0:
        return _WithDropout.apply(qkv, groups, heads, rate, noise, firsts)
    parts = []
    for group in groups:
        q, k, v = _split(qkv, group, heads, 3)
        mask = None if group.real is None else group.real[:, None, None]
        context = F.scaled_dot_product_attention(q[:, :, :1] if firsts else q, k, v, mask)
        parts.append(_join(context, group, firsts))
    filler = 0 if firsts else len(qkv) - groups[-1].stop
    if filler:
        parts.append(parts[0].new_zeros(filler, parts[0].shape[1]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _WithDropout(torch.autograd.Function):
    """Attention with dropout of its weights. Autograd's own chain keeps and walks more tensors."""

    @staticmethod
    def forward(ctx, qkv, groups, heads, rate, noise, firsts):
        width = qkv.shape[1] // 3
        out = qkv.new_empty(sum(g.count for g in groups) if firsts else len(qkv), width)
        if not firsts:
            out[groups[-1].stop :] = 0
        saved, row = [], 0
        ctx.drops = []
        with torch.autocast(qkv.device.type, enabled=False):
            for group in groups:
                q, k, v = _heads(_split(qkv, group, heads, 3))
                q = (q[:, :1] if firsts else q) * (width // heads) ** -0.5
                weights = _softmax(torch.bmm(q, k.transpose(1, 2)), group, heads)
                dropped = _draw(noise, rate, group, weights.shape)
                ctx.drops.append((dropped, dropped.take_out(weights)))
                context = torch.bmm(weights, v)
                rows = _join(context.unflatten(0, (group.count, heads)), group, firsts)
                out[row : row + len(rows)] = rows
                row += len(rows)
                saved += [q, k, v, weights, context]
        ctx.save_for_backward(*saved)
        ctx.groups, ctx.heads, ctx.firsts, ctx.shape = groups, heads, firsts, qkv.shape
        ctx.keeping = keeping(rate)
        return out.mul_(ctx.keeping)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        out = grad.new_empty(ctx.shape)
        out[ctx.groups[-1].stop :] = 0
        grad = grad * ctx.keeping
        saved, row = iter(ctx.saved_tensors), 0
        for group, drop in zip(ctx.groups, ctx.drops, strict=True):
            parts = tuple(next(saved) for _ in range(5))
            stop = row + (group.count if ctx.firsts else group.stop - group.start)
            given = _padded_gradient(grad[row:stop], group, ctx.heads, ctx.firsts)
            padded = _backward(given, *parts, *drop).unflatten(1, (group.count, ctx.heads))
            rows = padded.permute(1, 3, 0, 2, 4).reshape(-1, ctx.shape[1])
            if group.places is None:
                out[group.start : group.stop] = rows
            else:
                torch.index_select(rows, 0, group.places, out=out[group.start : group.stop])
            row = stop
        return out, None, None, None, None, None


def _backward(given, q, k, v, kept, context, dropped, taken) -> Tensor:
    """Return the gradients of q, k and v: [3, n * N, L, D]; q came scaled.

    ``kept`` are the weights without what was dropped, ``taken``. It is left as it is.
    """
    out = k.new_empty(3, *k.shape)
    torch.bmm(kept.transpose(1, 2), given, out=out[2])
    # Of the scores: kept * slope - weights * (the sum of a row of that, which is given * context).
    scores = torch.bmm(given, v.transpose(1, 2)).mul_(kept)
    dropped.put_back(kept, taken)
    scores.addcmul_(kept, (given * context).sum(-1, keepdim=True), value=-1)
    dropped.clear(kept)
    torch.bmm(scores.transpose(1, 2), q, out=out[1])
    asked = torch.bmm(scores, k).mul_(q.shape[2] ** -0.5)
    if q.shape[1] < k.shape[1]:
        out[0] = 0
    out[0, :, : q.shape[1]] = asked
    return out


def _softmax(scores: Tensor, group: Group, heads: int) -> Tensor:
    """Return the weights, [n * N, queries, L]: none on padding."""
    if group.real is not None:
        shape = (group.count, heads, *scores.shape[1:])
        # A sum with minus infinity takes a tenth of the time of filling by mask.
        barred = scores.new_zeros(group.real.shape).masked_fill_(~group.real, -torch.inf)
        scores.view(shape).add_(barred[:, None, None])
    return torch.softmax(scores, -1)


def _draw(noise: Noise, rate: float, group: Group, shape: Sequence[int]) -> Places:
    """Draw what is dropped of weights of ``shape``, [n * N, queries, L]: L rounded up or not."""
    if group.length == group.longest:
        return noise.drop(shape, rate)
    drawn = shape[0], min(shape[1], group.longest), group.longest
    return noise.drop(drawn, rate).within(drawn, shape)


def _padded_gradient(rows: Tensor, group: Group, heads: int, firsts: bool) -> Tensor:
    """Lay the gradient of a group's rows out as [n * N, queries, D]: zero where padding is."""
    if firsts:
        return rows.reshape(group.count * heads, 1, -1)
    if group.source is not None:
        rows = rows.index_select(0, group.source).mul_(group.real.view(-1, 1))
    whole = group._replace(start=0, stop=len(rows), source=None)
    return _heads(_split(rows, whole, heads, 1))[0]


def _heads(padded: Tensor) -> Tensor:
    """Copy [parts, n, N, L, D] to [parts, n * N, L, D], each head's rows side by side."""
    return padded.contiguous().flatten(1, 2)


def _split(rows: Tensor, group: Group, heads: int, parts: int) -> Tensor:
    """Lay a group's rows, [T, parts * H], out as padded heads: [parts, n, N, L, D]."""
    rows = rows[group.start : group.stop]
    if group.source is not None:
        rows = rows.index_select(0, group.source)
    shape = (group.count, group.length, parts, heads, rows.shape[1] // (parts * heads))
    return rows.reshape(shape).permute(2, 0, 3, 1, 4)


def _join(padded: Tensor, group: Group, firsts: bool) -> Tensor:
    """Lay padded heads, [n, N, L, D], out as a group's rows, [tokens, H]."""
    rows = padded.transpose(1, 2).reshape(-1, padded.shape[1] * padded.shape[3])
    return rows if firsts or group.places is None else rows.index_select(0, group.places)
