"""Attention within each sequence of a packed stream, one block of near-equal lengths at a time.

That is for a CPU; for a GPU see :mod:`minbert.model.varlen_attention`.

    T tokens   H hidden   N heads   D = H / N   n sequences of a block   L tokens of its longest
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..packing.blocks import Block, Blocks
from ..packing.joined import Joined
from ..packing.pack import Ragged
from .dropout import Dropout, keeping
from .joined_dropout import JoinedDropout
from .varlen_attention import varlen_attention


def attention(
    qkv: Tensor,
    blocks: Blocks | Ragged | Joined,
    num_heads: int,
    rate: float = 0.0,
    dropout: Dropout | None = None,
    queries: Tensor | None = None,
    cls_positions: Tensor | None = None,
) -> Tensor:
    """Multi-head self-attention within each sequence (Vaswani et al. 2017, equation 1).

    Args:
        qkv: [T, 3H], the queries, keys and values of the stream; with ``queries`` [T, 2H], keys and
            values alone.
        blocks: the stream as blocks; what lies behind the last belongs to no sequence. Parts that
            are :class:`Joined` come with dropout of the same parts.
        rate: dropout of the attention weights, applied where there is ``dropout``.
        queries: [sequences, H], the queries of each sequence's first token, if only these look.
        cls_positions: int [sequences], where these tokens lie, in place of their queries; for
            :class:`Ragged`.

    Returns:
        The attention heads' outputs side by side: [T, H], zero where there is no sequence, or with
        ``queries`` or ``cls_positions`` [sequences, H].
    """
    if isinstance(blocks, Ragged):
        return varlen_attention(
            qkv, blocks, num_heads, rate if dropout else 0.0, queries, cls_positions
        )
    if isinstance(blocks, Joined):
        return _each_part(qkv, blocks, num_heads, rate, dropout, queries)
    if dropout and rate > 0:
        return _WithDropout.apply(qkv, queries, blocks, num_heads, rate, dropout)
    rows = qkv.index_select(0, blocks.source) if blocks.padded else qkv[: blocks.tokens]
    out = _without_dropout(rows, queries, blocks, num_heads)
    if queries is not None:
        return out
    out = out.index_select(0, blocks.places) if blocks.padded else out
    filler = len(qkv) - blocks.tokens
    return F.pad(out, (0, 0, 0, filler)) if filler else out


def _each_part(
    qkv: Tensor,
    joined: Joined,
    num_heads: int,
    rate: float,
    dropout: Dropout | None,
    queries: Tensor | None,
) -> Tensor:
    """Return attention's outputs of parts that know nothing of each other."""
    count = len(joined.blocks)
    streams = dropout.streams if isinstance(dropout, JoinedDropout) else [dropout] * count
    asking = [None] * count if queries is None else joined.cut(queries)
    each = zip(joined.cut(qkv), joined.blocks, streams, asking, strict=True)
    return torch.cat([attention(part, own, num_heads, rate, s, q) for part, own, s, q in each])


def _without_dropout(
    rows: Tensor, queries: Tensor | None, blocks: Blocks, num_heads: int
) -> Tensor:
    """Return the outputs of every place of the blocks, [P, 3H] -> [P, H], or of [CLS] alone."""
    parts, sizes = [], [block.places for block in blocks]
    cls = [None] * len(blocks) if queries is None else queries.split([b.sequences for b in blocks])
    each = zip(rows.split(sizes), cls, blocks, blocks.padding_bias(rows.dtype), strict=True)
    for part, query, block, bias in each:
        shape = (block.sequences, block.length, 3 if query is None else 2, num_heads, -1)
        *q, k, v = part.view(shape).permute(2, 0, 3, 1, 4)
        q = q[0] if query is None else query.view(block.sequences, num_heads, 1, -1)
        context = F.scaled_dot_product_attention(q, k, v, bias)
        parts.append(context.transpose(1, 2).flatten(2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class _WithDropout(torch.autograd.Function):
    """Attention with dropout of its weights. Autograd's own chain keeps and walks more tensors.

    Rows of heads are brought where products want them, and back, for all blocks at once.
    """

    @staticmethod
    def forward(ctx, qkv, queries, blocks, num_heads, rate, dropout):
        cls_only = queries is not None
        layout = blocks.head_layout(num_heads, 2 if cls_only else 3)
        depth = qkv.shape[1] // (layout.parts * num_heads)
        rows = qkv.reshape(-1, depth).index_select(0, layout.take)
        *q, k, v = rows.view(layout.parts, -1, depth)
        q = queries.reshape(-1, depth) * depth**-0.5 if cls_only else q[0].mul_(depth**-0.5)
        contexts, weights, ctx.drops = torch.empty_like(q), [], []
        per_query = (_block_rows(x, blocks, num_heads, cls_only) for x in (q, contexts))
        per_key = (_block_rows(x, blocks, num_heads) for x in (k, v))
        each = zip(blocks, blocks.padding_bias(q.dtype), *per_query, *per_key, strict=True)
        for block, bias, query, context, key, values in each:
            weights.append(_softmax(torch.bmm(query, key.transpose(1, 2)), bias, block))
            drawn = len(query), min(query.shape[1], block.longest), block.longest
            dropped = dropout.draw(drawn, rate).within(drawn, weights[-1].shape)
            ctx.drops.append((dropped, dropped.take_out(weights[-1])))
            torch.bmm(weights[-1], values, out=context)
        ctx.save_for_backward(q, k, v, contexts, *weights)
        ctx.blocks, ctx.num_heads, ctx.layout, ctx.shape = blocks, num_heads, layout, qkv.shape
        ctx.keeping = keeping(rate)
        if cls_only:
            return contexts.view(queries.shape).mul(ctx.keeping)
        return _gathered(contexts, layout.gather, (len(qkv), num_heads * depth)).mul_(ctx.keeping)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, contexts, *weights = ctx.saved_tensors
        blocks, num_heads, layout = ctx.blocks, ctx.num_heads, ctx.layout
        cls_only = layout.parts == 2
        given = (grad * ctx.keeping).view(-1, q.shape[1])
        if not cls_only:
            given = given.index_select(0, layout.spread)
            if layout.padding is not None:
                given.index_fill_(0, layout.padding, 0)
        out = k.new_empty(layout.parts, *k.shape)
        q_grad = torch.empty_like(q) if cls_only else out[0]
        of_queries = given, q, contexts, q_grad
        per_query = (_block_rows(x, blocks, num_heads, cls_only) for x in of_queries)
        per_key = (_block_rows(x, blocks, num_heads) for x in (k, v, *out[-2:]))
        for kept, drop, *parts in zip(weights, ctx.drops, *per_query, *per_key, strict=True):
            _backward(*parts, kept, *drop)
        found = _gathered(out.view(-1, q.shape[1]), layout.back, ctx.shape)
        return found, q_grad.view(grad.shape) if cls_only else None, *[None] * 4


def _backward(given, q, context, q_grad, k, v, k_grad, v_grad, kept, dropped, taken) -> None:
    """Write the gradients of a block's q, k and v, [n * N, L, D]; q came scaled.

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


def _softmax(scores: Tensor, bias: Tensor | None, block: Block) -> Tensor:
    """Return the weights, [n * N, queries, L]: none on padding."""
    if bias is not None:
        scores.view(block.sequences, -1, *scores.shape[1:]).add_(bias)
    return torch.softmax(scores, -1)


def _block_rows(
    rows: Tensor, blocks: Blocks, num_heads: int, cls_only: bool = False
) -> Iterator[Tensor]:
    """Yield each block's rows, [n * N, L, D], or with ``cls_only`` [n * N, 1, D]."""
    sizes = [block.sequences * num_heads * (1 if cls_only else block.length) for block in blocks]
    for part, block in zip(rows.split(sizes), blocks, strict=True):
        yield part.view(block.sequences * num_heads, -1, rows.shape[1])


def _gathered(rows: Tensor, where: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return rows of heads, [., D], as rows of tokens of ``shape``: zero on filler."""
    out = rows.new_empty(shape)
    found = out.view(-1, rows.shape[1])
    torch.index_select(rows, 0, where, out=found[: len(where)])
    found[len(where) :] = 0
    return out
