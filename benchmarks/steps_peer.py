"""The same trainings as one would write them with transformers and peft, as their documentation
recommends: texts tokenised beforehand, batches padded to their longest sequence, scaled dot product
attention, fused AdamW. How to run it: README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import AutoTokenizer, BertModel, DataCollatorWithPadding

_SITES = ["query", "key", "value", "intermediate.dense", r"layer\.\d+\.output\.dense"]


class Bert(nn.Module):
    """A BertModel under a head for each task."""

    def __init__(self, backbone: str, heads: Mapping[str, int], dropout: float) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(backbone, attn_implementation="sdpa")
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleDict(
            {task: nn.Linear(self.bert.config.hidden_size, n) for task, n in heads.items()}
        )

    def forward(self, task: str, inputs: Mapping[str, Tensor]) -> Tensor:
        pooled = self.bert(**inputs).pooler_output
        return self.heads[task](self.dropout(pooled))


def with_lora(model: Bert, rank: int, alpha: float) -> nn.Module:
    """Put peft's LoRA where ours is: q, k, v, both feed-forward linears and the heads."""
    sites = "|".join([rf".*\.({'|'.join(_SITES)})", r"heads\.\w+"])
    return get_peft_model(
        model, LoraConfig(r=rank, lora_alpha=alpha * rank, lora_dropout=0.0, target_modules=sites)
    )


class Peer:
    """A training, and predictions.

    Args:
        texts: of each task, the rows: one or two sentences each.
        labels: of each task.
        precision: ``float32``, or ``bfloat16`` under autocast.
        compiled: whether torch compiles the encoder, for any shape.
    """

    def __init__(
        self,
        model: nn.Module,
        backbone: str,
        texts: Mapping[str, Sequence[tuple[str, ...]]],
        labels: Mapping[str, np.ndarray],
        lr: float,
        precision: str = "float32",
        device: torch.device = torch.device("cpu"),  # noqa: B008
        compiled: bool = False,
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(backbone)
        self.features = {task: encode(tokenizer, rows) for task, rows in texts.items()}
        self.labels = {task: torch.from_numpy(np.array(rows)) for task, rows in labels.items()}
        self.collate = DataCollatorWithPadding(tokenizer)
        self.model = model.to(device)
        if compiled:
            model.bert.compile(dynamic=True)  # the whole would be compiled for each task anew
        self.precision = precision
        self.device = device
        trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=0.0, fused=True)

    def _autocast(self):
        wide = self.precision == "float32"
        return nullcontext() if wide else torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _inputs(self, task: str, indices: Sequence[int]) -> dict[str, Tensor]:
        inputs = self.collate([self.features[task][i] for i in indices])
        return {name: self._sent(tensor) for name, tensor in inputs.items()}

    def _sent(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def step(self, task: str, indices: np.ndarray) -> float:
        """Train on some examples; return their loss."""
        self.model.train()
        inputs = self._inputs(task, indices)
        with self._autocast():
            outputs = self.model(task, inputs)
        loss = loss_of(task, outputs.float(), self._sent(self.labels[task][indices]))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    @torch.inference_mode()
    def predict(self, task: str, batch_size: int = 64) -> Tensor:
        """Return the outputs for every example, in batches of near-equal lengths."""
        self.model.eval()
        features = self.features[task]
        order = sorted(range(len(features)), key=lambda i: len(features[i]["input_ids"]))
        parts = []
        for start in range(0, len(order), batch_size):
            inputs = self._inputs(task, order[start : start + batch_size])
            with self._autocast():
                parts.append(self.model(task, inputs).float())
        ordered = torch.cat(parts).cpu()
        outputs = torch.empty_like(ordered)
        outputs[torch.tensor(order)] = ordered
        return outputs


def encode(tokenizer, rows: Sequence[tuple[str, ...]]) -> list[dict]:
    """Tokenise sentences or pairs."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    encoded = tokenizer(*columns, truncation=True, max_length=512)
    return [{key: encoded[key][i] for key in encoded} for i in range(len(rows))]


def loss_of(task: str, outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of a batch: the same losses as ours."""
    if task == "sst":
        return F.cross_entropy(outputs, labels.long())
    if task == "para":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels)
    return F.mse_loss(outputs[:, 0], labels)
