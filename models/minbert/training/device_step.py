"""A training step on a device: everything is on its way when it returns, and nothing is waited for.

All that a step decides lies in tensors, and its inputs always lie in the same memory, so that it
can be captured in a CUDA graph and replayed: see :mod:`minbert.training.step_graphs`. On a
processor the same code computes the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..model.product_weights import ProductWeights
from ..model.varlen_attention import why_padded
from ..packing.buckets import Bucket, Buckets
from ..tasks.builtin import TASKS, get_task
from ..tasks.rows import RowTasks
from .build import Setup
from .late_values import LateValues
from .objective import RowObjective
from .optimizer_state import load_optimizer, optimizer_tensors
from .optimizers import clip
from .step_graphs import StepGraphs
from .step_inputs import StepInputs
from .steps import Result
from .task_optimizers import TaskOptimizers


class DeviceSteps:
    """The steps of a training on a device.

    Args:
        graphs: whether steps become CUDA graphs, where there are some.

    Attributes:
        tasks: that a batch may be of.
    """

    def __init__(self, setup: Setup, graphs: bool = True) -> None:
        self._setup = setup
        train, model, device = setup.config.train, setup.model, setup.device
        self._buckets = Buckets(train.batch_size, model.encoder.shape.max_positions)
        self._inputs: dict[Bucket, StepInputs] = {}
        self.tasks = RowTasks(TASKS)
        self.weights = ProductWeights(model, model.product_weights(), setup.dtype)
        names = [task.name for task in TASKS]
        self._optimizers = TaskOptimizers(
            setup.trained, names, model.task_of, train.weight_decay, device
        )
        self._loss, self._one = torch.zeros((), device=device), torch.ones((), device=device)
        self._losses, self._tokens = LateValues(device), deque[int]()
        self.graphs = StepGraphs(device, setup.generators, setup.renew_generators, graphs)
        shape = model.encoder.shape
        padded = why_padded(device, setup.dtype, shape.hidden_size // shape.num_heads)
        self._notices = [padded] if padded else []

    def launch(self, task_name: str, drawn: np.ndarray, lr: float) -> None:
        """Train on some examples of a task, by their indices: where the loss is finite."""
        task = get_task(task_name)
        batch, labels = self._setup.corpus.train[task_name].batch(drawn, ragged=True)
        bucket = self._buckets.of(batch.tokens, len(labels))
        if bucket not in self._inputs:
            self._inputs[bucket] = StepInputs(bucket, self.tasks, self._setup.device)
        inputs = self._inputs[bucket]
        inputs.fill(batch, labels, task, lr)
        # Adaptation layers are other tensors for each task; everything else is told by the rows.
        own = task_name if self._setup.model.pals is not None else None
        self.graphs.run((bucket, own), lambda: self.compute(inputs, task_name))
        self._losses.add(self._loss)
        self._tokens.append(batch.tokens)

    def compute(self, inputs: StepInputs, task_name: str) -> None:
        """Take a step, from inputs that lie on the device to weights that lie there.

        Args:
            task_name: whose adaptation layers take part.
        """
        self._loss.copy_(self.differentiate(inputs, task_name))
        self._move(inputs)

    def differentiate(self, inputs: StepInputs, task_name: str) -> Tensor:
        """Compute the gradients of what trains; return the loss, float32 []."""
        setup, batch = self._setup, inputs.batch(task_name)
        setup.drop_gradients()  # of a step that could not be captured
        self.weights.drop_gradients()
        objective = RowObjective(setup.model, batch, inputs.rows)
        self.weights.refresh()
        loss = self.weights.within(lambda: setup.loss(batch, objective))
        loss.backward(self._one)
        self.weights.collect()
        return loss.detach()

    def _move(self, inputs: StepInputs) -> None:
        setup, train = self._setup, self._setup.config.train
        norm = clip(setup.trained.values(), train.grad_clip or None)
        # A gradient that is not finite is a step that is not.
        torch.add(self._loss, norm - norm, out=self._loss)
        self._optimizers.lr.copy_(inputs.lr)
        self._optimizers.step(inputs.active, self._loss)
        setup.drop_gradients()
        if setup.smart is not None:
            setup.smart.after_step(setup.trained, 1 - self._optimizers.diverged)

    def finished(self, wait: bool = False) -> list[Result]:
        """Return what came of the steps since the last call, in order; see :class:`Steps`."""
        return [Result(loss, self._tokens.popleft()) for loss in self._losses.take(wait)]

    def notices(self) -> list[str]:
        """Return what makes steps slower than they would be, see :class:`Steps`."""
        said, self._notices = self._notices + self.graphs.notices, []
        self.graphs.notices = []
        return said

    def catch_up(self) -> None:
        """Nothing lags behind."""

    def close(self) -> None:
        """Nobody waits for these steps."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizers' state, for a checkpoint."""
        return optimizer_tensors(self._setup.trained, self._optimizers.state)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`tensors` returned, here or on a processor."""
        setup = self._setup
        load_optimizer(setup.trained, self._optimizers.state, tensors, {}, setup.rates)
