"""Parallel adaptation layers: task-specific functions TS(h) beside each layer.

Low-rank layers and projected attention layers (PALs) of Stickland & Murray (2019), in the forms
that the paper compares (its section 4.3, equations 6 and 7):

``low-rank``          TS(h) = V^D gelu(V^E h), d_s = 100
``pals``              TS(h) = gelu(V^D MH(V^E h)), d_s = 204, six heads, no output projection
``shared``            PALs whose V^E and V^D are one pair for all layers (not for all tasks)
``shared-attention``  and whose attention is one for all layers too
``mixed``             ``shared`` in the first half of the layers, ``low-rank`` in the last half

TS always takes the layer's input h; where it joins is :attr:`Adapter.placement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..common.streams import generator
from ..model.attention import attention
from ..model.dropout import Dropout
from ..model.encoder import Adapter, EncoderShape, Linear, split_projection
from ..packing.pack import PackedBatch, Span

LOW_RANK, PAL, PAL_HEADS = 100, 204, 6  # d_s, d_s, attention heads
_DEVIATION = 0.02  # of new weights, as BERT's own


class Projection(nn.Module):
    """V^E and V^D: from the hidden size to the small one and back, with biases."""

    def __init__(self, hidden: int, small: int) -> None:
        super().__init__()
        self.encoder = Linear(hidden, small)
        self.decoder = Linear(small, hidden)


class TaskLayers(nn.Module):
    """The task-specific functions of one task, for every layer.

    Args:
        kind: see the module's text.
    """

    def __init__(self, shape: EncoderShape, kind: str) -> None:
        super().__init__()
        self.attention_rate = shape.attention_dropout
        self._plan = [_plan(kind, layer, shape.layers) for layer in range(shape.layers)]
        self.projections = nn.ModuleDict()
        self.attentions = nn.ModuleDict()
        for projection, attention_name in self._plan:
            if projection not in self.projections:
                small = LOW_RANK if attention_name is None else PAL
                self.projections[projection] = Projection(shape.hidden_size, small)
            if attention_name is not None and attention_name not in self.attentions:
                self.attentions[attention_name] = Linear(PAL, 3 * PAL)  # query, key and value

    def initialise(self, stream: torch.Generator) -> None:
        """Draw the weights; V^D starts at zero, so that training starts at the backbone."""
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.normal_(module.weight, std=_DEVIATION, generator=stream)
                nn.init.zeros_(module.bias)
        for name in self.projections:
            nn.init.zeros_(self._projection(name).decoder.weight)

    def _projection(self, name: str) -> Projection:
        return cast(Projection, self.projections[name])

    def _attention(self, name: str) -> Linear:
        return cast(Linear, self.attentions[name])

    def forward(
        self,
        layer: int,
        h: Tensor,
        span: Span,
        dropout: Dropout | None,
        cls_positions: Tensor | None = None,
    ) -> Tensor:
        """Return TS(h) of one layer for one task's part of the stream, [T, H] -> [T, H].

        Args:
            cls_positions: where each sequence's [CLS] lies, if only these are wanted: [S, H].
        """
        name, attention_name = self._plan[layer]
        projection = self._projection(name)
        if attention_name is None:
            h = h if cls_positions is None else h.index_select(0, cls_positions)
            return projection.decoder(F.gelu(projection.encoder(h)))
        small, joint = projection.encoder(h), self._attention(attention_name)  # [T, d_s]
        if cls_positions is None:
            queries, qkv = None, joint(small)  # [T, 3 d_s]
        else:
            cls = small.index_select(0, cls_positions)
            queries, qkv = split_projection(joint.weight, joint.bias, small, cls)
        context = attention(qkv, span.blocks, PAL_HEADS, self.attention_rate, dropout, queries)
        return F.gelu(projection.decoder(context))


def _plan(kind: str, layer: int, layers: int) -> tuple[str, str | None]:
    """Name a layer's projection and its attention (None: low-rank); equal names are shared."""
    own = f"layer{layer}"
    if kind == "mixed":
        kind = "shared" if layer < layers // 2 else "low-rank"
    return {
        "low-rank": (own, None),
        "pals": (own, own),
        "shared": ("shared", own),
        "shared-attention": ("shared", "shared"),
    }[kind]


class Pals(nn.Module, Adapter):
    """Parallel adaptation layers for some tasks.

    Args:
        placement: ``original`` or ``alternative``, see :class:`minbert.model.encoder.Adapter`.
        tasks: the tasks that have them; for the others TS(h) is zero.
    """

    def __init__(
        self, shape: EncoderShape, kind: str, placement: str, tasks: Sequence[str]
    ) -> None:
        super().__init__()
        self.placement = placement
        self.tasks = nn.ModuleDict({task: TaskLayers(shape, kind) for task in tasks})

    def initialise(self, seed: int) -> None:
        """Draw each task's weights from a stream of its own."""
        for task in self.tasks:
            self._layers(task).initialise(generator(seed, "pals", task))

    def _layers(self, task: str) -> TaskLayers:
        return cast(TaskLayers, self.tasks[task])

    def parallel(
        self, layer: int, h: Tensor, batch: PackedBatch, dropout: Dropout | None, cls_only: bool
    ) -> Tensor | None:
        """Return TS(h), each part of the stream by its own task's layers."""
        if not any(span.task in self.tasks for span in batch.spans):
            return None
        parts, sequence = [], 0
        for span in batch.spans:
            behind = sequence + span.sequences
            positions = batch.cls_positions[sequence:behind] - span.start if cls_only else None
            whole = len(batch.spans) == 1 and span.stop == len(h)
            part = h if whole else h[span.start : span.stop]
            parts.append(self._part(layer, part, span, dropout, positions))
            sequence = behind
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _part(
        self,
        layer: int,
        h: Tensor,
        span: Span,
        dropout: Dropout | None,
        cls_positions: Tensor | None,
    ) -> Tensor:
        if span.task not in self.tasks:
            return torch.zeros_like(h if cls_positions is None else h[: len(cls_positions)])
        return self._layers(span.task)(layer, h, span, dropout, cls_positions).to(h.dtype)


class LoraAndPals(Adapter):
    """LoRA on the linear maps, and adaptation layers in parallel."""

    def __init__(self, linears: Adapter, pals: Pals) -> None:
        self.placement = pals.placement
        self._linears, self._pals = linears, pals

    def linear(self, layer: int, site: str, linear: Linear, x: Tensor) -> Tensor:
        return self._linears.linear(layer, site, linear, x)

    def cls_queries(
        self, layer: int, linear: Linear, x: Tensor, cls: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._linears.cls_queries(layer, linear, x, cls)

    def head(self, task: str, linear: Linear, x: Tensor) -> Tensor:
        return self._linears.head(task, linear, x)

    def all_heads(self, linears: Mapping[str, Linear], x: Tensor) -> Tensor:
        return self._linears.all_heads(linears, x)

    def parallel(
        self, layer: int, h: Tensor, batch: PackedBatch, dropout: Dropout | None, cls_only: bool
    ) -> Tensor | None:
        return self._pals.parallel(layer, h, batch, dropout, cls_only)
