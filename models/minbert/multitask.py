"""The whole model: one encoder, the adapters, a head for each task; and who trains what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adapters.lora import Lora, LowRank
from .adapters.pals import LoraAndPals, Pals
from .common.streams import generator
from .config import Config
from .model.dropout import Dropout
from .model.encoder import NO_ADAPTER, Adapter, Encoder, EncoderShape, Linear
from .model.product_weights import with_weights
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
            {task: Linear(shape.hidden_size, outputs) for task, outputs in HEAD_WIDTHS.items()}
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

    def head(self, task: str) -> Linear:
        """Return the head of a task."""
        return cast(Linear, self.heads[task])

    def _heads(self) -> dict[str, Linear]:
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

    def merged(
        self, dtype: torch.dtype = torch.float32, ready: Mapping[str, Tensor] | None = None
    ) -> MergedModel:
        """Return the same function for evaluation: LoRA merged into the weights that it is beside.

        Args:
            dtype: what products run in: their weights are brought to it here, once.
            ready: frozen weights that were brought to it before, by name.
        """
        weights = {} if self.lora is None else self._merged_lora()
        for name in self.product_weights() if dtype != torch.float32 else ():
            if name in weights:
                weights[name] = weights[name].to(dtype)
            elif ready and name in ready:
                weights[name] = ready[name]
            elif self.lora is None or not name.startswith("lora."):
                weights[name] = self.get_parameter(name).detach().to(dtype)
        return MergedModel(self, weights, self._with_pals(NO_ADAPTER))

    def _merged_lora(self) -> dict[str, Tensor]:
        """Return W0 + alpha B A of each linear map that carries LoRA, by its weight's name."""
        assert self.lora is not None
        names = {id(p): name for name, p in self.named_parameters()}
        pairs = self.lora.pairs(self.encoder, self._heads())
        return {names[id(linear.weight)]: beside.merged(linear.weight) for linear, beside in pairs}

    def product_weights(self) -> list[str]:
        """Name the parameters that enter products of tokens: of linear maps, and of LoRA.

        Pooler and heads see one token of each sequence: they stay in float32, which costs nothing.
        """
        return [
            f"{name}.{own}"
            for name, module in self.named_modules()
            if isinstance(module, Linear | LowRank)
            and not name.startswith(("heads.", "lora.heads.", "encoder.pooler"))
            for own, _ in module.named_parameters(recurse=False)
        ]

    def _with_pals(self, linears: Adapter) -> Adapter:
        return linears if self.pals is None else LoraAndPals(linears, self.pals)

    def task_of(self, parameter: str) -> str | None:
        """Return whose a parameter is, by its name: one task's, or everybody's."""
        for prefix in ("heads.", "lora.heads.", "pals.tasks."):
            if parameter.startswith(prefix):
                return parameter.removeprefix(prefix).partition(".")[0]
        return None

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
        pooled = self.pooled(embedded, batch, adapter, dropout)
        out = adapter.head(task.name, self.head(task.name), pooled)
        return out.to(torch.promote_types(out.dtype, torch.float32))

    def all_outputs(
        self, embedded: Tensor, batch: PackedBatch, dropout: Dropout | None = None
    ) -> Tensor:
        """Return the outputs of every head side by side, [S, of all tasks], float32."""
        pooled = self.pooled(embedded, batch, self.adapter, dropout)
        return self.adapter.all_heads(self._heads(), pooled)

    def pooled(
        self, embedded: Tensor, batch: PackedBatch, adapter: Adapter, dropout: Dropout | None
    ) -> Tensor:
        """Return what a head sees of each sequence, [S, H], from embeddings [T, H]."""
        cls = self.encoder.encode(embedded, batch, adapter, dropout, cls_only=True)
        pooled = self.encoder.pool_cls(cls)
        return dropout.apply(pooled, self.head_dropout) if dropout else pooled


class MergedModel:
    """A model as evaluation has it, see :meth:`MultiTaskModel.merged`."""

    def __init__(self, model: MultiTaskModel, weights: dict[str, Tensor], adapter: Adapter) -> None:
        self._model, self._weights, self._adapter = model, weights, adapter

    def __call__(self, batch: PackedBatch, task: Task) -> Tensor:
        """Return the raw outputs of a task's head for each sequence, [S, task.outputs]."""
        return with_weights(
            self._model, self._weights, lambda: self._model(batch, task, adapter=self._adapter)
        )


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
