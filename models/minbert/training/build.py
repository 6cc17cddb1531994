"""What a training is made of, by its configuration: model, schedule, precision."""

from __future__ import annotations

from pathlib import Path

import torch

from ..backbone.weights import find_backbone, load_encoder_state, read_shape
from ..config import Config
from ..data.datasets import Corpus
from ..device import pick_dtype
from ..multitask import MultiTaskModel, build_model
from .schedule import Schedule


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
