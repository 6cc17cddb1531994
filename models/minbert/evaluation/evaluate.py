"""Predicting whole datasets: in order of length, in large packed batches, adapters merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from ..data.datasets import Dataset
from ..device import keeps_kernels
from ..multitask import MergedModel, MultiTaskModel, predicted_values
from ..packing.pack import length_ordered
from ..packing.ragged import send, to_device
from .predictions import TaskPredictions

TOKEN_BUDGET = 2048  # a batch on a CPU, whose caches hold no more
_CUDA_FACTOR = 8
_WORK = 2.5e10  # tokens times parameters of the layers: an interrupt waits for one batch
_LEAST = 512  # tokens; with fewer, reading the weights would be what takes the time


@torch.inference_mode()
def predict_dataset(
    model: MultiTaskModel,
    dataset: Dataset,
    device: torch.device,
    dtype: torch.dtype,
    merged: MergedModel | None = None,
    after_batch: Callable[[], None] | None = None,
) -> torch.Tensor:
    """Return the head's raw outputs for every example, float32 [examples, outputs], in file order.

    Args:
        merged: the model in ``dtype``, if several datasets share one; made here if not given.
        after_batch: called after every batch; what it raises ends the prediction.
    """
    merged = merged if merged is not None else model.merged(dtype)
    outputs = torch.empty(len(dataset), dataset.task.outputs, device=device)
    fill, ragged = keeps_kernels(device, dtype), device.type != "cpu"
    for indices in length_ordered(dataset.lengths, token_budget(model, device)):
        batch, _ = dataset.batch(indices, fill, ragged=ragged)
        out = merged(to_device(batch, device), dataset.task)
        (rows,) = send((torch.from_numpy(indices[batch.order]),), device)
        outputs[rows] = out.float()
        if after_batch is not None:
            after_batch()
    return outputs.cpu()


def token_budget(model: MultiTaskModel, device: torch.device) -> int:
    """Return about how many tokens a batch of a prediction has: fewer for a larger encoder."""
    if device.type != "cpu":
        return _CUDA_FACTOR * TOKEN_BUDGET
    parameters = sum(p.numel() for p in model.encoder.layers.parameters())
    return min(TOKEN_BUDGET, max(_LEAST, int(_WORK / parameters)))


class DevSets:
    """The dev sets of all tasks, predicted together.

    Args:
        limit: examples of each, a fixed stratified subset; 0 means all.
    """

    def __init__(
        self, datasets: Mapping[str, Dataset], device: torch.device, limit: int = 0
    ) -> None:
        self.datasets = {name: d.stratified(limit) for name, d in datasets.items()}
        self.examples = sum(map(len, self.datasets.values()))
        self._device = device

    @torch.inference_mode()
    def predict(
        self,
        model: MultiTaskModel,
        dtype: torch.dtype,
        after_batch: Callable[[], None] | None = None,
        ready: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, TaskPredictions]:
        """Return the predictions of every task.

        Args:
            after_batch: see :func:`predict_dataset`.
            ready: frozen weights in ``dtype``, by name, if they are at hand.
        """
        merged = model.merged(dtype, ready)
        return {
            name: task_predictions(
                dataset, predict_dataset(model, dataset, self._device, dtype, merged, after_batch)
            )
            for name, dataset in self.datasets.items()
        }


def task_predictions(dataset: Dataset, outputs: torch.Tensor) -> TaskPredictions:
    """Join a dataset's rows with the head's outputs [examples, outputs]."""
    return TaskPredictions(
        task=dataset.task.name,
        ids=dataset.ids,
        texts=dataset.texts,
        labels=np.array(dataset.labels),
        outputs=outputs.numpy(),
        values=predicted_values(dataset.task, outputs).numpy(),
    )
