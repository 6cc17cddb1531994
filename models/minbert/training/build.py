"""What a training is made of, by its configuration: model, schedule, precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..backbone.weights import find_backbone, load_encoder_state, read_shape
from ..config import Config
from ..data.datasets import Corpus, load_corpus
from ..device import pick_device, pick_dtype
from ..model.device_dropout import make_dropout
from ..multitask import MultiTaskModel, build_model
from ..packing.pack import PackedBatch
from .objective import Objective
from .schedule import Schedule
from .smart import Smart


class Setup:
    """What every step of a training works with.

    Attributes:
        trained: the parameters that train, by name.
        dropout: its random stream. smart: the regulariser, if there is one.
    """

    def __init__(
        self, config: Config, model: MultiTaskModel, corpus: Corpus, device: torch.device
    ) -> None:
        seed = config.train.seed
        self.config, self.model, self.corpus, self.device = config, model, corpus, device
        self.dtype = config_dtype(config, device)
        self.trained = model.trained()
        self.dropout = make_dropout(seed, device)
        self.smart = Smart(config.smart, model, seed, device) if config.smart.on else None

    @classmethod
    def of(cls, config: Config, cache_dir: Path) -> Setup:
        """Make ready what a configuration needs.

        Raises:
            InputError: data or weights cannot be used, or the device is not here.
        """
        device = pick_device(config.train.device)
        corpus = load_corpus(config.data.path, config.backbone, cache_dir)
        return cls(config, prepare_model(config, cache_dir, device), corpus, device)

    def loss(self, batch: PackedBatch, objective: Objective) -> Tensor:
        """Return the mean loss of a batch in training, and what regularisation adds to it."""
        try:
            if self.smart is not None:
                outputs, extra = self.smart.losses(batch, objective, self.dropout)
                return objective.loss(outputs) + extra
            embedded = self.model.encoder.embeddings(batch, self.dropout)
            return objective.loss(objective.outputs(embedded, self.dropout))
        finally:
            self.dropout.end_step()

    def generators(self) -> list[torch.Generator]:
        """Return the random streams on a GPU that a graph has to know of."""
        own = [] if self.smart is None else [self.smart.stream]
        return own + self.dropout.generators()

    def renew_generators(self) -> None:
        """Go on from where these streams stand, after a graph that could not be captured."""
        self.dropout.renew()
        if self.smart is not None:
            self.smart.stream.graphsafe_set_state(self.smart.stream.clone_state())

    def drop_gradients(self) -> None:
        """Forget the gradients of what trains."""
        for p in self.trained.values():
            p.grad = None

    def rates(self, steps: np.ndarray) -> np.ndarray:
        """Return the learning rates of steps, counted from 1."""
        train = self.config.train
        return train.lr * np.minimum(1.0, steps / max(train.warmup_steps, 1))


def prepare_model(config: Config, cache_dir: Path | None, device: torch.device) -> MultiTaskModel:
    """Build the model of a configuration on its backbone's weights, heads and adapters drawn.

    Frozen weights are shared with every other model of this process on the same backbone.
    """
    folder = find_backbone(config.backbone, cache_dir)
    with torch.device("meta"):
        model = build_model(config, read_shape(folder))
    for drawn in (model.heads, model.lora, model.pals):
        if drawn is not None:
            _allocate(drawn)
    trains = {name for name, p in model.encoder.named_parameters() if p.requires_grad}
    state = load_encoder_state(folder)
    own = {name: t.clone() if name in trains else t for name, t in state.items()}
    model.encoder.load_state_dict(own, assign=True)
    model.initialise(config.train.seed)
    return model.to(device)


def _allocate(module: torch.nn.Module) -> None:
    """Give a module that was built without memory its own (`to_empty` would import sympy)."""
    state = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in module.state_dict().items()}
    module.load_state_dict(state, assign=True)


def make_schedule(config: Config, corpus: Corpus) -> Schedule:
    """Return the schedule of a training over a corpus."""
    return Schedule(
        config.schedule,
        {name: len(dataset) for name, dataset in corpus.train.items()},
        epochs=config.train.epochs,
        steps_per_epoch=config.train.steps_per_epoch,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
    )


def config_dtype(config: Config, device: torch.device) -> torch.dtype:
    """Return the type that a configuration's matrix products run in; SMART needs float32."""
    return pick_dtype("float32" if config.smart.on else config.train.precision, device)
