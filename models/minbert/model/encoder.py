"""The BERT encoder (Devlin et al. 2018), whole, on packed tokens.

Nothing is padded here: embeddings, linear maps and norms run on a flat stream [tokens, hidden], and
only attention knows where a sequence ends. Letters in the shapes below:

    T tokens of all sequences   S sequences   H hidden   I intermediate   N heads   D = H / N

A forward pass with a :class:`~minbert.model.dropout.Dropout` trains; one without evaluates.
Adapters enter through one door, :class:`Adapter`: each linear map of a layer goes through it.

Whoever reads the model begins here, and reads on in this order:

    model/encoder.py      this file, from Embeddings to Encoder
    packing/pack.py       how sequences become one stream, PackedBatch
    model/attention.py    attention within each sequence (packing/blocks.py on a CPU)
    adapters/lora.py      LoRA: what stands beside a linear map, and how it is merged
    adapters/pals.py      adaptation layers: what is computed in parallel to a layer
    multitask.py          heads, losses, and who trains what
    training/trainer.py   a training's state; host_step.py and device_step.py: one step, on a
                          processor and on a GPU; loop.py: all of them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..packing.pack import PackedBatch, Ragged
from .attention import attention
from .dropout import Dropout
from .product_weights import fork


@dataclass(frozen=True)
class EncoderShape:
    """Sizes and rates of a BERT encoder, as its ``config.json`` gives them."""

    vocab_size: int
    hidden_size: int
    layers: int
    num_heads: int
    intermediate_size: int
    max_positions: int = 512
    segments: int = 2
    norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1


# Sizes known by name: parameter counts need no weights.
SHAPES = {
    "bert-base-uncased": EncoderShape(30_522, 768, 12, 12, 3072),
    "all-MiniLM-L6-v2": EncoderShape(30_522, 384, 6, 12, 1536),
}


class Adapter:
    """What a layer is adapted by; this one changes nothing.

    An adapter keeps its parameters apart from the encoder's, so that one frozen encoder can serve
    several adapters.

    Attributes:
        placement: where :meth:`parallel` joins. ``original``: the residual of the second norm;
            ``alternative``: the attention heads' output, before its projection.
    """

    placement = "original"

    def linear(self, layer: int, site: str, linear: Linear, x: Tensor) -> Tensor:
        """Apply ``linear`` of ``layer``: qkv, attention_output, intermediate or output."""
        return linear(x)

    def cls_queries(
        self, layer: int, linear: Linear, x: Tensor, cls: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the queries of ``cls``, [S, H], and keys and values of x, [T, 2H]."""
        return split_projection(linear.weight, linear.bias, x, cls)

    def head(self, task: str, linear: Linear, x: Tensor) -> Tensor:
        """Apply the head of ``task``, [S, H] -> [S, the task's outputs]."""
        return linear(x)

    def all_heads(self, linears: Mapping[str, Linear], x: Tensor) -> Tensor:
        """Apply the heads of tasks, by name: their outputs side by side, [S, all of them]."""
        weights, biases = zip(*((each.weight, each.bias) for each in linears.values()), strict=True)
        return F.linear(x.to(weights[0].dtype), torch.cat(weights), torch.cat(biases))

    def parallel(
        self, layer: int, h: Tensor, batch: PackedBatch, dropout: Dropout | None, cls_only: bool
    ) -> Tensor | None:
        """Return TS(h) for the input h, [T, H], of ``layer``; None where there is nothing.

        It is [T, H], or with ``cls_only`` [S, H], that of each sequence's first token.
        """
        return None


NO_ADAPTER = Adapter()


class Linear(nn.Linear):
    """A linear map that runs in its weight's precision, whatever its input's is.

    So a copy of the weights decides what products run in (:mod:`minbert.model.product_weights`).
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def split_projection(weight: Tensor, bias: Tensor, x: Tensor, cls: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the joint query, key and value map, [3H, .]: the first third to ``cls`` alone."""
    (query, others), (first, rest) = (split_queries(t) for t in (weight, bias))
    x, cls = x.to(weight.dtype), cls.to(weight.dtype)
    return F.linear(cls, query, first), F.linear(x, others, rest)


def split_queries(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first third of its rows, and the others."""
    third = len(t) // 3
    return t.split((third, 2 * third))


class Embedding(nn.Embedding):
    """An embedding whose values are somebody else's business: they are loaded, or drawn by name.

    torch's own begins with Gaussian values even where there is no memory for them (on the ``meta``
    device), and imports eight hundred modules to do so: two seconds of every process.
    """

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class Embeddings(nn.Module):
    """Word, position and segment embeddings, summed and normalised."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.rate = shape.hidden_dropout
        self.word = Embedding(shape.vocab_size, shape.hidden_size)
        self.position = Embedding(shape.max_positions, shape.hidden_size)
        self.segment = Embedding(shape.segments, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_eps)

    def forward(self, batch: PackedBatch, dropout: Dropout | None) -> Tensor:
        x = self.word(batch.token_ids) + self.position(batch.positions)
        x = self.norm(x + self.segment(batch.segments))
        return dropout.apply(x, self.rate, batch.tokens) if dropout else x  # [T, H]


class Layer(nn.Module):
    """One transformer layer: self-attention and feed-forward, each with residual and norm."""

    def __init__(self, shape: EncoderShape, index: int) -> None:
        super().__init__()
        hidden, inner, eps = shape.hidden_size, shape.intermediate_size, shape.norm_eps
        self.index = index
        self.num_heads = shape.num_heads
        self.rate = shape.hidden_dropout
        self.attention_rate = shape.attention_dropout
        self.qkv = Linear(hidden, 3 * hidden)  # query, key and value in one product
        self.attention_output = Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=eps)
        self.intermediate = Linear(hidden, inner)
        self.output = Linear(inner, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=eps)

    def forward(
        self,
        h: Tensor,
        batch: PackedBatch,
        adapter: Adapter,
        dropout: Dropout | None,
        cls_only: bool = False,
    ) -> Tensor:
        """Return the hidden states that follow h, [T, H], or only each sequence's first, [S, H]."""
        dtype = self.qkv.weight.dtype
        h, x = fork(h, dtype)
        ts = adapter.parallel(self.index, h, batch, dropout, cls_only)
        rows = len(batch.cls_positions) if cls_only else batch.tokens
        if cls_only:  # the others are keys and values only, and not looked at from there on
            h = F.embedding(batch.cls_positions, h)
            context = self._cls_attention(x, h, batch, adapter, dropout)
        else:
            qkv = adapter.linear(self.index, "qkv", self.qkv, x)  # [T, 3H]
            context = attention(qkv, batch.blocks, self.num_heads, self.attention_rate, dropout)
        if ts is not None and adapter.placement == "alternative":
            context = context + ts
        context = adapter.linear(self.index, "attention_output", self.attention_output, context)
        a, x = fork(self.attention_norm(self._add(h, context, dropout, rows)), dtype)
        f = F.gelu(adapter.linear(self.index, "intermediate", self.intermediate, x))  # [T, I]
        f = self._add(a, adapter.linear(self.index, "output", self.output, f), dropout, rows)
        if ts is not None and adapter.placement == "original":
            f = f + ts
        return self.output_norm(f)  # [T, H]

    def _cls_attention(
        self, x: Tensor, cls: Tensor, batch: PackedBatch, adapter: Adapter, dropout: Dropout | None
    ) -> Tensor:
        """Return attention's outputs for each sequence's [CLS], [T, H] and [S, H] -> [S, H].

        A processor computes no more queries than these; a GPU is sooner done with all of them than
        with cutting a weight in two.
        """
        rate = self.attention_rate
        if isinstance(batch.blocks, Ragged):
            qkv = adapter.linear(self.index, "qkv", self.qkv, x)
            on = batch.cls_positions
            return attention(qkv, batch.blocks, self.num_heads, rate, dropout, cls_positions=on)
        queries, rest = adapter.cls_queries(self.index, self.qkv, x, cls)
        return attention(rest, batch.blocks, self.num_heads, rate, dropout, queries)

    def linears(self) -> tuple[Linear, ...]:
        """Return the linear maps."""
        return self.qkv, self.attention_output, self.intermediate, self.output

    def _add(self, residual: Tensor, x: Tensor, dropout: Dropout | None, rows: int) -> Tensor:
        """Return ``residual`` plus ``x`` under dropout, in the residual's precision."""
        return dropout.add(residual, x, self.rate, rows) if dropout else residual + x


class Encoder(nn.Module):
    """The BERT encoder with its pooler.

    Its parameters carry no gradient switch of their own: who trains what is decided in
    :mod:`minbert.multitask`.
    """

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.embeddings = Embeddings(shape)
        self.layers = nn.ModuleList(Layer(shape, index) for index in range(shape.layers))
        self.pooler = Linear(shape.hidden_size, shape.hidden_size)

    def layer(self, index: int) -> Layer:
        """Return one of the layers."""
        return cast(Layer, self.layers[index])

    def linears(self) -> Iterator[Linear]:
        """Yield the linear maps of all layers."""
        for index in range(len(self.layers)):
            yield from self.layer(index).linears()

    def forward(
        self, batch: PackedBatch, adapter: Adapter = NO_ADAPTER, dropout: Dropout | None = None
    ) -> Tensor:
        """Return the last layer's hidden states, [T, H]."""
        return self.encode(self.embeddings(batch, dropout), batch, adapter, dropout)

    def encode(
        self,
        h: Tensor,
        batch: PackedBatch,
        adapter: Adapter = NO_ADAPTER,
        dropout: Dropout | None = None,
        cls_only: bool = False,
    ) -> Tensor:
        """Run the layers on embeddings [T, H]; return the last hidden states, [T, H].

        Args:
            cls_only: return each sequence's [CLS] alone, [S, H]. The last layer computes nothing
                else then: the other tokens are its keys and values only.
        """
        if dropout:
            dropout.draw_ahead(2 * len(self.layers), h, self.shape.hidden_dropout)
        for layer in self.layers[:-1]:
            h = layer(h, batch, adapter, dropout)
        return self.layers[-1](h, batch, adapter, dropout, cls_only)

    def pool(self, hidden: Tensor, batch: PackedBatch) -> Tensor:
        """Return tanh(W h + b) of each sequence's [CLS], [S, H], in packed order."""
        return self.pool_cls(hidden[batch.cls_positions])

    def pool_cls(self, cls: Tensor) -> Tensor:
        """Return tanh(W h + b), [S, H] -> [S, H]."""
        return torch.tanh(self.pooler(cls))
