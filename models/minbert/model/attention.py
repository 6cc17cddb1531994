"""Attention within each sequence of a packed stream, one block of near-equal lengths at a time.

That is for a CPU; for a GPU see :mod:`minbert.packing.ragged`.

    T tokens   H hidden   N heads   D = H / N   n sequences of a group   L tokens of its longest
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..packing.blocks import Group, Groups
from ..packing.pack import Ragged
from .dropout import Dropout, keeping
from .ragged_attention import ragged_attention


def attention(
    qkv: Tensor,
    groups: Groups | Ragged,
    heads: int,
    rate: float = 0.0,
    dropout: Dropout | None = None,
    queries: Tensor | None = None,
) -> Tensor:
    """Multi-head self-attention within each sequence (Vaswani et al. 2017, equation 1).

    Args:
        qkv: [T, 3H], the queries, keys and values of the stream; with ``queries`` [T, 2H], keys and
            values alone.
        groups: the stream as blocks; what lies behind the last belongs to no sequence.
        rate: dropout of the attention weights, applied where there is ``dropout``.
        queries: [sequences, H], the queries of each sequence's first token, if only these ask.

    Returns:
        The attention heads' outputs side by side: [T, H], zero where there is no sequence, or with
        ``queries`` [sequences, H].
    """
    if isinstance(groups, Ragged):
        return ragged_attention(qkv, groups, heads, rate if dropout else 0.0, queries)
    if dropout and rate > 0:
        return _WithDropout.apply(qkv, queries, groups, heads, rate, dropout)
    rows = qkv.index_select(0, groups.source) if groups.padded else qkv[: groups.tokens]
    out = _without_dropout(rows, queries, groups, heads)
    if queries is not None:
        return out
    out = out.index_select(0, groups.places) if groups.padded else out
    filler = len(qkv) - groups.tokens
    return F.pad(out, (0, 0, 0, filler)) if filler else out


def _without_dropout(rows: Tensor, queries: Tensor | None, groups: Groups, heads: int) -> Tensor:
    """Return the outputs of every place of the blocks, [P, 3H] -> [P, H], or of who asks."""
    parts, sizes = [], [group.places for group in groups]
    asks = [None] * len(groups) if queries is None else queries.split([g.count for g in groups])
    blocks = zip(rows.split(sizes), asks, groups, groups.barred(rows.dtype), strict=True)
    for part, asked, group, barred in blocks:
        shape = (group.count, group.length, 3 if asked is None else 2, heads, -1)
        *q, k, v = part.view(shape).permute(2, 0, 3, 1, 4)
        q = q[0] if asked is None else asked.view(group.count, heads, 1, -1)
        context = F.scaled_dot_product_attention(q, k, v, barred)
        parts.append(context.transpose(1, 2).flatten(2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _WithDropout(torch.autograd.Function):
    """Attention with dropout of its weights. Autograd's own chain keeps and walks more tensors.

    Rows of heads are brought where products want them, and back, for all groups at once.
    """

    @staticmethod
    def forward(ctx, qkv, queries, groups, heads, rate, dropout):
        firsts = queries is not None
        where = groups.heads(heads, 2 if firsts else 3)
        depth = qkv.shape[1] // (where.parts * heads)
        rows = qkv.reshape(-1, depth).index_select(0, where.take)
        *q, k, v = rows.view(where.parts, -1, depth)
        q = queries.reshape(-1, depth) * depth**-0.5 if firsts else q[0].mul_(depth**-0.5)
        contexts, weights, ctx.drops = torch.empty_like(q), [], []
        asks = (_blocks(x, groups, heads, firsts) for x in (q, contexts))
        keys = (_blocks(x, groups, heads) for x in (k, v))
        blocks = zip(groups, groups.barred(q.dtype), *asks, *keys, strict=True)
        with torch.autocast(qkv.device.type, enabled=False):
            for group, barred, asked, context, key, values in blocks:
                weights.append(_softmax(torch.bmm(asked, key.transpose(1, 2)), barred, group))
                drawn = len(asked), min(asked.shape[1], group.longest), group.longest
                dropped = dropout.draw(drawn, rate).within(drawn, weights[-1].shape)
                ctx.drops.append((dropped, dropped.take_out(weights[-1])))
                torch.bmm(weights[-1], values, out=context)
        ctx.save_for_backward(q, k, v, contexts, *weights)
        ctx.groups, ctx.heads, ctx.where, ctx.shape = groups, heads, where, qkv.shape
        ctx.keeping = keeping(rate)
        if firsts:
            return contexts.view(queries.shape).mul(ctx.keeping)
        return _gathered(contexts, where.gather, (len(qkv), heads * depth)).mul_(ctx.keeping)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, contexts, *weights = ctx.saved_tensors
        groups, heads, where = ctx.groups, ctx.heads, ctx.where
        firsts = where.parts == 2
        given = (grad * ctx.keeping).view(-1, q.shape[1])
        if not firsts:
            given = given.index_select(0, where.spread)
            if where.padding is not None:
                given.index_fill_(0, where.padding, 0)
        out = k.new_empty(where.parts, *k.shape)
        q_grad = torch.empty_like(q) if firsts else out[0]
        asks = (_blocks(x, groups, heads, firsts) for x in (given, q, contexts, q_grad))
        keys = (_blocks(x, groups, heads) for x in (k, v, *out[-2:]))
        for kept, drop, *parts in zip(weights, ctx.drops, *asks, *keys, strict=True):
            _backward(*parts, kept, *drop)
        found = _gathered(out.view(-1, q.shape[1]), where.back, ctx.shape)
        return found, q_grad.view(grad.shape) if firsts else None, *[None] * 4


def _backward(given, q, context, q_grad, k, v, k_grad, v_grad, kept, dropped, taken) -> None:
    """Write the gradients of a group's q, k and v, [n * N, L, D]; q came scaled.

    ``kept`` are the weights without what was dropped, ``taken``. It is left as it is.
    """
    torch.bmm(kept.transpose(1, 2), given, out=v_grad)
    # Of the scores: kept * slope - weights * (the sum of a row of that, which is given * context).
    scores = torch.bmm(given, v.transpose(1, 2)).mul_(kept)
    dropped.put_back(kept, taken)
    scores.addcmul_(kept, (given * context).sum(-1, keepdim=True), value=-1)
    dropped.clear(kept)
    torch.bmm(scores.transpose(1, 2), q, out=k_grad)
    torch.bmm(scores, k, out=q_grad).mul_(q.shape[2] ** -0.5)


def _softmax(scores: Tensor, barred: Tensor | None, group: Group) -> Tensor:
    """Return the weights, [n * N, queries, L]: none on padding."""
    if barred is not None:
        scores.view(group.count, -1, *scores.shape[1:]).add_(barred)
    return torch.softmax(scores, -1)


def _blocks(rows: Tensor, groups: Groups, heads: int, firsts: bool = False) -> Iterator[Tensor]:
    """Yield each group's rows, [n * N, L, D], or with ``firsts`` [n * N, 1, D]."""
    sizes = [group.count * heads * (1 if firsts else group.length) for group in groups]
    for part, group in zip(rows.split(sizes), groups, strict=True):
        yield part.view(group.count * heads, -1, rows.shape[1])


def _gathered(rows: Tensor, where: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return rows of heads, [., D], as rows of tokens of ``shape``: zero on filler."""
    out = rows.new_empty(shape)
    found = out.view(-1, rows.shape[1])
    torch.index_select(rows, 0, where, out=found[: len(where)])
    found[len(where) :] = 0
    return out
