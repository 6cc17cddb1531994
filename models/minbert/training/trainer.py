"""The state of a training and what moves it: one step, one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.awake import awake
from ..config import Config
from ..data.datasets import load_corpus
from ..device import autocast, keeps_kernels, pick_device
from ..errors import DivergedError
from ..evaluation.evaluate import DevSets
from ..evaluation.metrics import all_scores
from ..model.dropout import make_dropout
from ..multitask import task_loss
from ..packing.pack import PackedBatch, length_ordered
from ..packing.ragged import send, to_device
from ..tasks.builtin import get_task
from ..tasks.task import Task
from .build import config_dtype, make_schedule, prepare_model
from .optimizers import AdamW, RowAdamW
from .reports import EpochReport, Meter, StepReport
from .schedule import Draws
from .smart import Smart

WORD = "encoder.embeddings.word.weight"
_KEPT_BYTES = 384 << 20  # for the backward pass, where that decides how much memory is needed


class Trainer:
    """A training in progress.

    Attributes:
        epoch: the epoch that is under way, from 1; ``epochs + 1`` when all are done.
        in_epoch: steps of it that are done. step: steps done in all.
        best_score, best_epoch: of the evaluations until now.
    """

    def __init__(self, config: Config, cache_dir: Path) -> None:
        self.config = config
        self.device = pick_device(config.train.device)
        self.dtype = config_dtype(config, self.device)
        self._fill = keeps_kernels(self.device, self.dtype)
        self.corpus = load_corpus(config.data.path, config.backbone, cache_dir)
        self.model = prepare_model(config, cache_dir, self.device)
        self.trained = self.model.trained()
        seed = config.train.seed
        self.dropout = make_dropout(seed, self.device)
        self.smart = Smart(config.smart, self.model, seed, self.device) if config.smart.on else None
        self.schedule = make_schedule(config, self.corpus)
        self.draws = {
            name: Draws(len(dataset), config.train.batch_size, seed, name)
            for name, dataset in self.corpus.train.items()
        }
        self.tokens_at_once = self._tokens_at_once()
        self.rows = self._row_optimizer()
        self._dense = {n: p for n, p in self.trained.items() if self.rows is None or n != WORD}
        self.optimizer = AdamW(
            self._dense.values(),
            lr=config.train.lr,
            weight_decay=config.train.weight_decay,
            fused=True,
        )
        self.total_steps = self.schedule.total_steps()
        self.epoch, self.in_epoch, self.step = 1, 0, 0
        self.best_score, self.best_epoch = float("-inf"), 0
        self.meter = Meter()
        self.dev = DevSets(self.corpus.dev, self.device, config.train.eval_limit)

    def _tokens_at_once(self) -> int | None:
        """Return how many tokens of a batch are computed together; None: all.

        Under a frozen encoder a training's memory is what layers keep for the backward pass, and
        a batch in parts costs next to nothing. SMART looks at a batch as a whole.
        """
        frozen = self.config.train.mode == "last-linear-layer"
        if not frozen or self.smart is not None or self.device.type != "cpu":
            return None
        shape = self.model.encoder.shape
        kept = shape.layers * (10 * shape.hidden_size + 2 * shape.intermediate_size)  # a token
        return max(1, _KEPT_BYTES // (4 * kept))

    def _row_optimizer(self) -> RowAdamW | None:
        """Return what trains the word embedding, if that can be done by row; None: it cannot.

        Weight decay and an averaged teacher move or read every row at every step.
        """
        by_row = WORD in self.trained and self.device.type == "cpu"
        if not by_row or self.config.train.weight_decay or self.config.smart.proximal:
            return None
        self.model.encoder.embeddings.word.sparse = True
        return RowAdamW(self.trained[WORD], self._rates)

    def _rates(self, steps: np.ndarray) -> np.ndarray:
        """Return the learning rates of steps, counted from 1."""
        train = self.config.train
        return train.lr * np.minimum(1.0, steps / max(train.warmup_steps, 1))

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return float(self._rates(np.array([self.step or 1]))[0])

    def take_step(self, task_name: str) -> StepReport:
        """Train on the next batch of a task.

        Raises:
            DivergedError: the loss is not finite; the weights are as before the step.
        """
        begin = awake()
        drawn = self.draws[task_name].next()
        self.step += 1
        self.in_epoch += 1
        loss, tokens = 0.0, 0
        for indices in self._parts(task_name, drawn):
            part, count = self._learn(task_name, indices, len(indices) / len(drawn))
            loss, tokens = loss + part, tokens + count
        self._update()
        seconds = awake() - begin
        report = StepReport(self.step, task_name, loss, self.lr, tokens, seconds)
        self.meter.add(report)
        return report

    def _parts(self, task_name: str, drawn: np.ndarray) -> Iterable[np.ndarray]:
        """Cut a batch into parts that are computed one after the other, if it is too long."""
        if self.tokens_at_once is None:
            return (drawn,)
        offsets = self.corpus.train[task_name].offsets
        lengths = offsets[drawn + 1] - offsets[drawn]
        if lengths.sum() <= self.tokens_at_once:
            return (drawn,)
        return (drawn[part] for part in length_ordered(lengths, self.tokens_at_once))

    def _learn(self, task_name: str, indices: np.ndarray, share: float) -> tuple[float, int]:
        """Add some examples' gradient, times their share of a batch; return that loss, and tokens.

        Raises:
            DivergedError: the loss is not finite.
        """
        task = get_task(task_name)
        batch, labels = self.corpus.train[task_name].batch(indices, self._fill, self._fill)
        if self.rows is not None:
            self.rows.catch_up(torch.from_numpy(np.unique(batch.token_ids.numpy())))
        with autocast(self.device, self.dtype):
            outputs, extra = self._forward(to_device(batch, self.device), task)
        (wanted,) = send((torch.from_numpy(labels),), self.device)
        loss = (task_loss(task, outputs, wanted) + extra) * share
        loss.backward()
        value = loss.item()  # here a GPU is waited for, with everything but the update on its way
        if not math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            raise DivergedError(self.step, task_name, value)
        return value, batch.tokens

    def _forward(self, batch: PackedBatch, task: Task) -> tuple[Tensor, Tensor | float]:
        """Return a batch's outputs, and what regularisation adds to their loss."""
        if self.smart is not None:
            return self.smart.losses(batch, task, self.dropout)
        return self.model(batch, task, dropout=self.dropout), 0.0

    def _update(self) -> None:
        if self.config.train.grad_clip:
            clip(self.trained.values(), self.config.train.grad_clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.rows is not None:
            self.rows.take_step()
        if self.smart is not None:
            self.smart.after_step(self.trained)

    def evaluate(self, after_batch: Callable[[], None] | None = None) -> EpochReport:
        """Score the dev sets. Doing it twice gives the same report, but for its seconds.

        Args:
            after_batch: called after every batch; what it raises leaves the training as it was.
        """
        begin = awake()
        if self.rows is not None:
            self.rows.catch_up()
        predictions = self.dev.predict(self.model, self.dtype, after_batch)
        scores = all_scores(predictions)
        is_best = scores["score"] > self.best_score or self.best_epoch == self.epoch
        if is_best:
            self.best_score, self.best_epoch = scores["score"], self.epoch
        return EpochReport(
            epoch=self.epoch,
            step=self.step,
            total_steps=self.total_steps,
            scores=scores,
            best_score=self.best_score,
            best_epoch=self.best_epoch,
            is_best=is_best,
            losses=self.meter.losses(),
            predictions=predictions,
            lr=self.lr,
            tokens_per_second=self.meter.tokens / max(self.meter.seconds, 1e-9),
            train_seconds=self.meter.total_seconds,
            eval_seconds=awake() - begin,
            eval_examples=self.dev.examples,
        )

    def evaluates(self) -> bool:
        """Whether the epoch under way ends with an evaluation."""
        train = self.config.train
        return self.epoch % train.eval_every == 0 or self.epoch == train.epochs

    def next_epoch(self) -> None:
        """Go on to the next epoch."""
        if self.evaluates():
            self.meter = Meter(total_seconds=self.meter.total_seconds)
        self.epoch += 1
        self.in_epoch = 0

    # ---- its whole state, for a checkpoint

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that trains, the optimizer's moments and the random stream."""
        tensors: dict[str, Tensor] = {f"weights/{name}": p for name, p in self.trained.items()}
        for name, p in self._dense.items():
            for part, value in self.optimizer.state[p].items():
                tensors[f"optimizer/{part}/{name}"] = value
        if self.rows is not None:
            tensors |= {f"optimizer/{part}/{WORD}": t for part, t in self.rows.tensors().items()}
        tensors["noise"] = self.dropout.state()
        return tensors | (self.smart.tensors() if self.smart is not None else {})

    def numbers(self) -> dict:
        """Return the rest of the state, as JSON holds it exactly."""
        return {
            "epoch": self.epoch,
            "in_epoch": self.in_epoch,
            "step": self.step,
            "best_score": self.best_score if self.best_epoch else None,
            "best_epoch": self.best_epoch,
            "draws": {name: draws.state() for name, draws in self.draws.items()},
            "meter": vars(self.meter),
        }

    def load(self, tensors: Mapping[str, Tensor], numbers: dict) -> None:
        """Go on from a state that :meth:`tensors` and :meth:`numbers` gave."""
        load_weights(self.trained, tensors)
        for key in (key for key in tensors if key.startswith("optimizer/")):
            _, part, name = key.split("/", 2)
            if name not in self._dense:
                continue
            # The fused kernel wants the number of steps on the device, too.
            self.optimizer.state[self.trained[name]][part] = tensors[key].clone().to(self.device)
        if self.rows is not None:
            self.rows.load({part: tensors[f"optimizer/{part}/{WORD}"] for part in self.rows.PARTS})
        self.dropout.load_state(tensors["noise"])
        if self.smart is not None:
            self.smart.load(tensors)
        self.epoch, self.in_epoch = numbers["epoch"], numbers["in_epoch"]
        self.step, self.best_epoch = numbers["step"], numbers["best_epoch"]
        self.best_score = float("-inf") if self.best_epoch == 0 else numbers["best_score"]
        for name, draws in self.draws.items():
            draws.load_state(numbers["draws"][name])
        self.meter = Meter(**numbers["meter"])


def clip(parameters: Iterable[torch.nn.Parameter], most: float) -> None:
    """Scale gradients, sparse ones too, so that their norm all together is at most ``most``."""
    gradients = []
    for p in parameters:
        if p.grad is not None and p.grad.is_sparse:
            p.grad = p.grad.coalesce()
            gradients.append(p.grad.values())
        elif p.grad is not None:
            gradients.append(p.grad)
    norm = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))


def load_weights(trained: Mapping[str, torch.nn.Parameter], tensors: Mapping[str, Tensor]) -> None:
    """Copy ``weights/<name>`` tensors into parameters."""
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weights/{name}"])
