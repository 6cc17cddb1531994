"""The whole model: one encoder, the adapters, a head for each task; and who trains what."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters.lora import Lora
from .adapters.pals import LoraAndPals, Pals
from .common.streams import generator
from .config import Config
from .model.dropout import Dropout
from .model.encoder import NO_ADAPTER, Adapter, Encoder, EncoderShape, MergedWeights
from .packing.pack import PackedBatch
from .tasks.builtin import HEAD_WIDTHS
from .tasks.task import Task


class MultiTaskModel(nn.Module):
    """One encoder under several heads.

    Args:
        shape: the encoder's sizes.
        mode: ``full-model`` or ``last-linear-layer``, the paper's words for what trains.
        lora, pals: the adapters, if there are any; they always train.
        head_dropout: rate before each head.
    """

    def __init__(
        self,
        shape: EncoderShape,
        mode: str,
        lora: Lora | None = None,
        pals: Pals | None = None,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.head_dropout = head_dropout
        self.encoder = Encoder(shape)
        self.heads = nn.ModuleDict(
            {task: nn.Linear(shape.hidden_size, outputs) for task, outputs in HEAD_WIDTHS.items()}
        )
        self.lora = lora
        self.pals = pals
        self._choose_what_trains(mode)

    def _choose_what_trains(self, mode: str) -> None:
        """Set ``requires_grad`` as the paper's section 4.2 has it.

        ``last-linear-layer``: with LoRA only its matrices, without it the heads.
        ``full-model``: everything, but for the linears that carry LoRA (heads included).
        """
        self.encoder.requires_grad_(mode == "full-model")
        self.heads.requires_grad_(self.lora is None)
        if self.lora is not None:
            for linear, _ in self.lora.pairs(self.encoder, self._heads()):
                linear.requires_grad_(False)

    def head(self, task: str) -> nn.Linear:
        """Return the head of a task."""
        return cast(nn.Linear, self.heads[task])

    def _heads(self) -> dict[str, nn.Linear]:
        return {task: self.head(task) for task in self.heads}

    def initialise(self, seed: int) -> None:
        """Draw heads and adapters, each from a stream of its own."""
        for task, head in self._heads().items():
            stream = generator(seed, "head", task)
            bound = 1 / math.sqrt(head.in_features)  # torch's own default for a linear map
            nn.init.uniform_(head.weight, -bound, bound, generator=stream)
            nn.init.uniform_(head.bias, -bound, bound, generator=stream)
        for adapter in (self.lora, self.pals):
            if adapter is not None:
                adapter.initialise(seed)

    @property
    def adapter(self) -> Adapter:
        """What the linear maps go through while training."""
        return self._with_pals(NO_ADAPTER if self.lora is None else self.lora)

    def merged_adapter(self, dtype: torch.dtype = torch.float32) -> Adapter:
        """What the linear maps go through in evaluation: the same function, one product a map.

        Args:
            dtype: the type that products run in: weights are brought to it here, once.
        """
        weights: dict[int, Tensor] = {}
        if dtype != torch.float32:
            weights = {id(each): each.weight.detach().to(dtype) for each in self.encoder.linears()
                       if each.weight.requires_grad}  # fmt: skip
        if self.lora is not None:
            weights |= self.lora.merged(self.encoder, self._heads(), dtype)
        return self._with_pals(MergedWeights(weights) if weights else NO_ADAPTER)

    def _with_pals(self, linears: Adapter) -> Adapter:
        return linears if self.pals is None else LoraAndPals(linears, self.pals)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that train, by name, in a fixed order."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def forward(
        self,
        batch: PackedBatch,
        task: Task,
        adapter: Adapter | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Return the head's raw outputs for each sequence, [S, task.outputs], in packed order."""
        return self.outputs(self.encoder.embeddings(batch, dropout), batch, task, adapter, dropout)

    def outputs(
        self,
        embedded: Tensor,
        batch: PackedBatch,
        task: Task,
        adapter: Adapter | None = None,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Return the head's raw outputs from embeddings [T, H]: :meth:`forward` after its start."""
        adapter = adapter if adapter is not None else self.adapter
        cls = self.encoder.encode(embedded, batch, adapter, dropout, cls_only=True)
        pooled = self.encoder.pool_cls(cls)
        if dropout:
            pooled = dropout.apply(pooled, self.head_dropout)
        out = adapter.head(task.name, self.head(task.name), pooled)
        return out.to(torch.promote_types(out.dtype, torch.float32))


def task_loss(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of a batch.

    Cross-entropy over the classes, binary cross-entropy on one logit, or mean squared error of the
    raw output (the paper, section 4).

    Args:
        outputs: [S, task.outputs]. labels: [S], float.
    """
    if task.kind == "classification":
        return F.cross_entropy(outputs, labels.long())
    if task.kind == "binary":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels)
    return F.mse_loss(outputs[:, 0], labels)


def predicted_values(task: Task, outputs: Tensor) -> Tensor:
    """Return the class, the probability or the raw similarity for each row, float [S]."""
    if task.kind == "classification":
        return outputs.argmax(1).float()
    return outputs[:, 0].sigmoid() if task.kind == "binary" else outputs[:, 0]


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, and how many of them train."""

    total: int
    trainable: int


def build_model(config: Config, shape: EncoderShape) -> MultiTaskModel:
    """Make the model of a configuration, its parameters not yet set."""
    lora, pals = config.lora, config.pals
    return MultiTaskModel(
        shape,
        config.train.mode,
        Lora(shape, HEAD_WIDTHS, lora.rank, lora.alpha) if lora.rank else None,
        Pals(shape, pals.kind, pals.placement, pals.tasks) if pals.kind != "none" else None,
        config.train.dropout,
    )


def count_parameters(config: Config, cache_dir=None) -> ParameterCounts:
    """Count the parameters of a configuration; no weights are needed.

    Args:
        cache_dir: where pulled backbones lie; needed for a Hugging Face id that is not known by
            name only.

    Raises:
        InputError: the backbone is not known.
    """
    from .backbone.weights import backbone_shape

    with torch.device("meta"):
        model = build_model(config, backbone_shape(config.backbone, cache_dir))
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return ParameterCounts(sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains))
