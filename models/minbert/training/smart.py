"""SMART: smoothness-inducing regularisation (Jiang et al. 2020; the paper's equations 8 to 10).

To the loss of a batch is added lambda times the divergence between the outputs on the embeddings x
and on perturbed embeddings x + delta, with delta in a ball of radius alpha:

``noise``        delta is Gaussian, projected on the ball: what the paper's experiment ran, but with
                 a divergence that fits each task
``adversarial``  delta climbs the divergence by projected gradient ascent, as SMART defines it

All passes see the same dropout masks, and run in float32: a perturbation of 1e-5 is below what
bfloat16 can tell apart. The proximal term (Bregman proximal point, equation 5 of SMART) adds the
divergence from a teacher whose weights are a running average of the model's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from ..common.streams import generator
from ..config import SmartConfig
from ..model.dropout import Dropout
from ..multitask import MultiTaskModel
from ..packing.pack import PackedBatch
from ..tasks.task import Task


def divergence(task: Task, outputs: Tensor, others: Tensor) -> Tensor:
    """Return how far two outputs of a task's head are apart, the mean over sequences.

    Symmetrised Kullback-Leibler divergence between the class distributions (equation 10), between
    Bernoulli distributions where there is one logit, and squared error for a regression.

    Args:
        outputs, others: [S, task.outputs], raw.
    """
    if task.kind == "regression":
        return F.mse_loss(outputs[:, 0], others[:, 0])
    if task.kind == "binary":
        # KL(p||q) + KL(q||p) of two Bernoullis is the product of the differences of
        # probabilities and logits.
        p, q = outputs[:, 0], others[:, 0]
        return ((p.sigmoid() - q.sigmoid()) * (p - q)).mean()
    p, q = outputs.log_softmax(1), others.log_softmax(1)
    return ((p.exp() - q.exp()) * (p - q)).sum(1).mean()


def project(delta: Tensor, batch: PackedBatch, radius: float, norm: str) -> Tensor:
    """Return the nearest perturbation in the ball of each sequence.

    Args:
        delta: [T, H].
        norm: ``linf`` bounds every element, ``l2`` the whole of a sequence's elements.
    """
    if norm == "linf":
        return delta.clamp(-radius, radius)
    norms = _sequence_norms(delta, batch)
    # A hair inside the ball: rounding must not carry anything out of it.
    return delta * (radius * (1 - 1e-6) / norms.clamp_min(radius))


def _sequence_norms(delta: Tensor, batch: PackedBatch) -> Tensor:
    """Return the Euclidean norm of each sequence's perturbation, one a token, [T, 1]."""
    owner = batch.owners  # filler is one sequence more
    squares = torch.zeros(len(batch.cls_positions) + 1, dtype=delta.dtype, device=delta.device)
    squares = squares.index_add(0, owner, delta.square().sum(1))
    return squares.sqrt()[owner, None]


def _return_to_here(dropout: Dropout | None) -> Callable[[], None]:
    """Return what takes dropout's stream back to where it stands now."""
    return partial(dropout.load_state, dropout.state()) if dropout else lambda: None


class Smart:
    """The regulariser of one training.

    Args:
        config: what to add.
        model: whose outputs are to be smooth.
        seed: seed of the training; perturbations have a stream of their own.
        device: where the model is.
    """

    def __init__(
        self, config: SmartConfig, model: MultiTaskModel, seed: int, device: torch.device
    ) -> None:
        self._config = config
        self._model = model
        self._stream = generator(seed, "smart", device=device)
        self.teacher: dict[str, Tensor] = {}
        if config.proximal:
            self.teacher = {name: p.detach().clone() for name, p in model.trained().items()}

    def losses(
        self, batch: PackedBatch, task: Task, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return a batch's outputs, [S, outputs], and what is to be added to their loss."""
        restart = _return_to_here(dropout)
        embedded = self._model.encoder.embeddings(batch, dropout)
        rewind = _return_to_here(dropout)

        def head(x: Tensor) -> Tensor:
            rewind()  # every pass sees the same masks
            return self._model.outputs(x, batch, task, dropout=dropout)

        outputs = head(embedded)
        extra: Tensor | float = 0.0
        if self._config.weight:
            delta = self.perturbation(embedded.detach(), outputs.detach(), head, batch, task)
            extra = self._config.weight * divergence(task, head(embedded + delta), outputs)
        if self._config.proximal:
            restart()
            taught = self._taught(batch, task, dropout)
            extra = extra + self._config.proximal * divergence(task, outputs, taught)
        return outputs, extra

    def perturbation(
        self,
        embedded: Tensor,
        outputs: Tensor,
        head: Callable[[Tensor], Tensor],
        batch: PackedBatch,
        task: Task,
    ) -> Tensor:
        """Return delta, [T, H], in the ball.

        Args:
            embedded: [T, H]. outputs: what ``head`` makes of it. Both without gradient.
            head: from embeddings to outputs.
        """
        config = self._config
        delta = torch.empty_like(embedded).normal_(generator=self._stream) * config.alpha
        delta = project(delta, batch, config.alpha, config.norm)
        for _ in range(config.steps if config.mode == "adversarial" else 0):
            delta.requires_grad_(True)
            distance = divergence(task, head(embedded + delta), outputs)
            (gradient,) = torch.autograd.grad(distance, delta)
            delta = delta.detach() + config.step_size * self._direction(gradient, batch)
            delta = project(delta, batch, config.alpha, config.norm)
        return delta

    def _direction(self, gradient: Tensor, batch: PackedBatch) -> Tensor:
        """Return the steepest ascent of unit length in the ball's norm."""
        if self._config.norm == "linf":
            return gradient.sign()
        return gradient / _sequence_norms(gradient, batch).clamp_min(1e-30)

    @torch.no_grad()
    def _taught(self, batch: PackedBatch, task: Task, dropout: Dropout | None) -> Tensor:
        return functional_call(self._model, self.teacher, (batch, task), {"dropout": dropout})

    @torch.no_grad()
    def after_step(self, trained: Mapping[str, Tensor]) -> None:
        """Move the teacher towards the model: its weights are a running average."""
        for name, weight in self.teacher.items():
            weight.lerp_(trained[name], 1 - self._config.momentum)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, for a checkpoint."""
        state = {f"teacher/{name}": weight for name, weight in self.teacher.items()}
        return state | {"smart": self._stream.get_state()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that :meth:`tensors` returned."""
        self._stream.set_state(tensors["smart"].cpu())
        for name, weight in self.teacher.items():
            weight.copy_(tensors[f"teacher/{name}"])
