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

import torch
from torch import Tensor

from ..common.streams import derive_seed, generator, stream_name, stream_state
from ..config import SmartConfig
from ..model.dropout import Dropout
from ..model.product_weights import with_weights
from ..multitask import MultiTaskModel
from ..packing.pack import PackedBatch
from .objective import Objective


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
        self._seed = seed
        self.stream = generator(seed, "smart", device=device)
        self.teacher: dict[str, Tensor] = {}
        if config.proximal:
            self.teacher = {name: p.detach().clone() for name, p in model.trained().items()}

    def losses(
        self, batch: PackedBatch, objective: Objective, dropout: Dropout | None
    ) -> tuple[Tensor, Tensor | float]:
        """Return a batch's outputs, [S, outputs], and what is to be added to their loss."""
        begin_batch = dropout.repeatable() if dropout else _nothing
        begin_batch()
        embedded = self._model.encoder.embeddings(batch, dropout)
        begin_outputs = dropout.repeatable() if dropout else _nothing

        def head(x: Tensor) -> Tensor:
            begin_outputs()  # every pass sees the same masks
            return objective.outputs(x, dropout)

        outputs = head(embedded)
        extra: Tensor | float = 0.0
        if self._config.weight:
            delta = self.perturbation(embedded.detach(), outputs.detach(), head, batch, objective)
            extra = self._config.weight * objective.divergence(head(embedded + delta), outputs)
        if self._config.proximal:
            begin_batch()
            taught = self._taught(lambda: head(self._model.encoder.embeddings(batch, dropout)))
            extra = extra + self._config.proximal * objective.divergence(outputs, taught)
        return outputs, extra

    def perturbation(
        self,
        embedded: Tensor,
        outputs: Tensor,
        head: Callable[[Tensor], Tensor],
        batch: PackedBatch,
        objective: Objective,
    ) -> Tensor:
        """Return delta, [T, H], in the ball.

        Args:
            embedded: [T, H]. outputs: what ``head`` makes of it. Both without gradient.
            head: from embeddings to outputs.
        """
        config = self._config
        delta = torch.empty_like(embedded).normal_(generator=self.stream) * config.alpha
        delta = project(delta, batch, config.alpha, config.norm)
        for _ in range(config.steps if config.mode == "adversarial" else 0):
            delta.requires_grad_(True)
            distance = objective.divergence(head(embedded + delta), outputs)
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
    def _taught(self, outputs: Callable[[], Tensor]) -> Tensor:
        return with_weights(self._model, self.teacher, outputs)

    @torch.no_grad()
    def after_step(self, trained: Mapping[str, Tensor], moves: Tensor | None = None) -> None:
        """Move the teacher towards the model: its weights are a running average.

        Args:
            moves: 0 or 1 on the device, where the step may have been left out there.
        """
        share: float | Tensor = 1 - self._config.momentum
        for name, weight in self.teacher.items():
            weight.lerp_(trained[name], share if moves is None else share * moves)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, for a checkpoint."""
        state = {f"teacher/{name}": weight for name, weight in self.teacher.items()}
        return state | {stream_name("smart", self.stream.device): self.stream.get_state()}

    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Go on from a state that :meth:`tensors` returned.

        Args:
            step: steps taken; where the perturbations' stream was another device's, another begins.
        """
        stream = stream_state(tensors, "smart", self.stream.device)
        if stream is None:
            self.stream.manual_seed(derive_seed(self._seed, "smart", step))
        else:
            self.stream.set_state(stream)
        for name, weight in self.teacher.items():
            weight.copy_(tensors[f"teacher/{name}"])


def _nothing() -> None:
    """Repeat nothing."""
