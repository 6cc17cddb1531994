"""Who takes training steps in `steps.py`: ours, and what one would use instead."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from lines import Side
from memory import LORA
from products import synchronize

from minbert import Config
from minbert.backbone.weights import find_backbone
from minbert.data.datasets import Corpus
from minbert.tasks.builtin import HEAD_WIDTHS
from minbert.training.schedule import Draws
from minbert.training.trainer import Trainer

LR = 1e-5
TURN = 4  # batches


def ours(options, **keys) -> Trainer:
    """Set up a training of ours."""
    names = {"backbone": options.backbone, "data.path": options.data, "train.lr": LR}
    names |= {"train.device": str(options.device)}
    return Trainer(Config.from_keys(names | {"train.epochs": 1} | keys), options.cache)


class Batches:
    """The batches that everyone trains on: the paper's mix of tasks, and each task's own draws."""

    def __init__(self, trainer: Trainer, steps: int) -> None:
        self._mix = iter(trainer.schedule.epoch(1))
        config = trainer.config.train
        self._draws = {
            name: Draws(len(dataset), config.batch_size, config.seed, name)
            for name, dataset in trainer.corpus.train.items()
        }
        self._steps = steps
        self._corpus = trainer.corpus.train
        self.now: list[tuple[str, np.ndarray]] = []

    def turns(self) -> Iterator[int]:
        """Take up the batches of a round, a few at a time; yield how many."""
        for begin in range(0, self._steps, TURN):
            count = min(TURN, self._steps - begin)
            tasks = [next(self._mix) for _ in range(count)]
            self.now = [(task, self._draws[task].next()) for task in tasks]
            yield count

    def lengths(self) -> list[np.ndarray]:
        """Return the tokens of each sequence, batch by batch."""
        return [self._corpus[task].lengths[indices] for task, indices in self.now]


def our_trainers(options) -> dict[str, Trainer]:
    """Set up our side of training steps."""
    trainings = {
        "plain": ours(options),
        "LoRA": ours(options, **LORA),
        "SMART": ours(options, **{"smart.lambda": 1e-3, "smart.mode": "noise"}),
        "PALs": ours(options, **{"pals.kind": "shared"}),
    }
    if options.bfloat16:
        trainings["plain float32"] = ours(options, **{"train.precision": "float32"})
    return trainings


def their_trainings(options, corpus: Corpus) -> dict:
    """Set up the other side of training steps."""
    from steps_peer import Bert, Peer, with_lora

    backbone = str(find_backbone(options.backbone))
    texts = {name: d.texts for name, d in corpus.train.items()}
    labels = {name: d.labels for name, d in corpus.train.items()}

    def peer(precision: str, lora: bool, compiled: bool = False) -> Peer:
        model = Bert(backbone, HEAD_WIDTHS, 0.3)
        return Peer(with_lora(model, 4, 1.0) if lora else model, backbone, texts, labels, LR,
                    precision, options.device, compiled)  # fmt: skip

    peers = {"transformers": peer("float32", False), "peft": peer("float32", True)}
    if options.bfloat16:
        peers["transformers bfloat16"] = peer("bfloat16", False)
        peers["peft bfloat16"] = peer("bfloat16", True)
    if options.compiled:
        fastest = "bfloat16" if options.bfloat16 else "float32"
        peers["transformers compiled"] = peer(fastest, False, True)
    return peers


def step_sides(options) -> tuple[dict[str, Side], Batches]:
    """Set up everyone who takes training steps."""
    trainings = our_trainers(options)
    peers = their_trainings(options, trainings["plain"].corpus)
    batches = Batches(trainings["plain"], options.steps)

    def our_steps(trainer: Trainer) -> None:
        for task, _ in batches.now:
            trainer.launch(task)
        trainer.settle()
        synchronize(options.device)

    def their_steps(peer) -> None:
        for task, indices in batches.now:
            peer.step(task, indices)
        synchronize(options.device)

    sides = {name: Side(lambda t=t: our_steps(t)) for name, t in trainings.items()}
    sides |= {name: Side(lambda p=p: their_steps(p)) for name, p in peers.items()}
    return sides, batches
