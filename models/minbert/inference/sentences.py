"""A trained model that answers to plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..backbone.tokenizer import load_tokenizer
from ..backbone.weights import find_backbone, read_shape
from ..data.datasets import Dataset
from ..device import pick_device
from ..errors import InputError
from ..evaluation.evaluate import predict_dataset, task_predictions
from ..tasks.builtin import get_task
from ..training.build import config_dtype
from .model_folder import load_model


class SentenceModel:
    """A model folder, loaded.

    Args:
        model_dir: what :func:`minbert.save_model` wrote.
        cache_dir: where pulled backbones lie.

    Raises:
        InputError: a file is missing or damaged, or the backbone is not the one it stands on.
    """

    def __init__(self, model_dir: Path, cache_dir: Path | None = None) -> None:
        config, self._model = load_model(model_dir, cache_dir)
        self._device = pick_device(config.train.device)
        self._dtype = config_dtype(config, self._device)
        folder = find_backbone(config.backbone, cache_dir)
        shape = read_shape(folder)
        self._tokenizer = load_tokenizer(folder, shape.max_positions, shape.vocab_size)
        self._model.to(self._device)
        self._merged = self._model.merged(self._dtype)

    def predict(self, task: str, texts: Sequence[tuple[str, ...]]) -> np.ndarray:
        """Return what the model says of each sentence or pair, float32 [texts]: the class (sst),
        the probability of a paraphrase (para), the raw similarity (sts).

        Raises:
            InputError: an unknown task, or a text that is not as many sentences as it reads.
        """
        asked = get_task(task)
        wanted = len(asked.text_columns)
        for row, text in enumerate(texts):
            if len(text) != wanted or not all(isinstance(part, str) for part in text):
                raise InputError(f"row {row}: task {task} reads {wanted} sentence(s), not {text!r}")
        if not texts:
            return np.empty(0, dtype=np.float32)
        dataset = Dataset.from_texts(asked, texts, self._tokenizer)
        outputs = predict_dataset(self._model, dataset, self._device, self._dtype, self._merged)
        return task_predictions(dataset, outputs).values
