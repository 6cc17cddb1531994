"""A training step on a processor: it is over when it returns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..device import keeps_kernels
from ..model.product_weights import ProductWeights
from ..packing.pack import length_ordered
from ..tasks.builtin import get_task
from .build import Setup
from .objective import TaskObjective
from .optimizer_state import load_optimizer, optimizer_tensors
from .optimizers import WORD, AdamW, RowAdamW, clip
from .steps import Result

_KEPT_BYTES = 384 << 20  # for the backward pass, where that decides how much memory is needed


class HostSteps:
    """The steps of a training on a processor."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._train = setup.config.train
        self._fill = keeps_kernels(setup.device, setup.dtype)
        self.tokens_at_once = self._tokens_at_once()
        self.rows = self._row_optimizer()
        self.weights = ProductWeights(setup.model, setup.model.product_weights(), setup.dtype)
        self._dense = {n: p for n, p in setup.trained.items() if self.rows is None or n != WORD}
        self._optimizer = AdamW(
            self._dense.values(),
            lr=self._train.lr,
            weight_decay=self._train.weight_decay,
            fused=True,
        )
        self._results: list[Result] = []

    def _tokens_at_once(self) -> int | None:
        """Return how many tokens of a batch are computed together; None: all.

        Under a frozen encoder a training's memory is what layers keep for the backward pass, and
        a batch in parts costs next to nothing. SMART looks at a batch as a whole.
        """
        if self._train.mode != "last-linear-layer" or self.setup.smart is not None:
            return None
        shape = self.setup.model.encoder.shape
        kept = shape.layers * (10 * shape.hidden_size + 2 * shape.intermediate_size)  # a token
        return max(1, _KEPT_BYTES // (4 * kept))

    def _row_optimizer(self) -> RowAdamW | None:
        """Return what trains the word embedding, if that can be done by row; None: it cannot.

        Weight decay and an averaged teacher move or read every row at every step.
        """
        setup = self.setup
        if WORD not in setup.trained or self._train.weight_decay or setup.config.smart.proximal:
            return None
        setup.model.encoder.embeddings.word.sparse = True
        return RowAdamW(setup.trained[WORD], setup.rates)

    def launch(self, task_name: str, drawn: np.ndarray, lr: float) -> None:
        """Train on some examples of a task, by their indices: where the loss is finite."""
        loss, tokens = self._gradients(task_name, drawn)
        if math.isfinite(loss):
            self._update(lr)
        self.setup.drop_gradients()
        self._results.append(Result(loss, tokens))

    def _gradients(self, task_name: str, drawn: np.ndarray) -> tuple[float, int]:
        """Compute a batch's gradients; return its loss, and its tokens."""
        loss, tokens = 0.0, 0
        self.weights.refresh()
        for indices in self._parts(task_name, drawn):
            part, count = self._learn(task_name, indices, len(indices) / len(drawn))
            loss, tokens = loss + part, tokens + count
            if not math.isfinite(part):
                break
        self.weights.collect()
        return loss, tokens

    def finished(self, wait: bool = False) -> list[Result]:
        """Return what came of the steps since the last call, in order."""
        results, self._results = self._results, []
        return results

    def _parts(self, task_name: str, drawn: np.ndarray) -> Iterable[np.ndarray]:
        """Cut a batch into parts that are computed one after the other, if it is too long."""
        if self.tokens_at_once is None:
            return (drawn,)
        offsets = self.setup.corpus.train[task_name].offsets
        lengths = offsets[drawn + 1] - offsets[drawn]
        if lengths.sum() <= self.tokens_at_once:
            return (drawn,)
        return (drawn[part] for part in length_ordered(lengths, self.tokens_at_once))

    def _learn(self, task_name: str, indices: np.ndarray, share: float) -> tuple[float, int]:
        """Add some examples' gradient, times their share; return their loss and tokens."""
        setup, task = self.setup, get_task(task_name)
        batch, labels = setup.corpus.train[task_name].batch(indices, self._fill, self._fill)
        if self.rows is not None:
            self.rows.catch_up(torch.from_numpy(np.unique(batch.token_ids.numpy())))
        objective = TaskObjective(setup.model, batch, task, torch.from_numpy(labels))
        loss = self.weights.within(lambda: setup.loss(batch, objective)) * share
        loss.backward()
        return loss.item(), batch.tokens

    def _update(self, lr: float) -> None:
        setup = self.setup
        if self._train.grad_clip:
            clip(setup.trained.values(), self._train.grad_clip)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        if self.rows is not None:
            self.rows.take_step()
        if setup.smart is not None:
            setup.smart.after_step(setup.trained)

    def notices(self) -> list[str]:
        """There are none."""
        return []

    def catch_up(self) -> None:
        """Bring every weight to the last step."""
        if self.rows is not None:
            self.rows.catch_up()

    def close(self) -> None:
        """Nobody waits for these steps."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizers' state, for a checkpoint."""
        tensors = optimizer_tensors(self._dense, self._optimizer.state)
        if self.rows is not None:
            tensors |= {f"optimizer/{part}/{WORD}": t for part, t in self.rows.tensors().items()}
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`tensors` returned, here or on a device."""
        rows = {} if self.rows is None else {WORD: self.rows}
        load_optimizer(self._dense, self._optimizer.state, tensors, rows, self.setup.rates)
