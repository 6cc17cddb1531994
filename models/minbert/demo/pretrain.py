"""Pretrain the demo encoder on the demo grammar: ``python -m minbert.demo.pretrain -o DIR``.

Masked tokens are predicted (Devlin et al. 2018, section 3.1). Beside that, the first layer learns
to say of each word whether its meaning occurs in the other sentence: two layers do not find that
out by themselves. Text comes from seeds that the corpus does not use; no label of a task is ever
seen. The result is a folder in the Hugging Face layout.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from ..backbone.weights import WEIGHTS, to_hf, write_config
from ..common.streams import derive_seed
from ..common.weights_file import save_weights
from ..model.dropout import Dropout
from ..model.encoder import NO_ADAPTER, Encoder, EncoderShape
from ..packing.pack import PackedBatch, pack
from .texts import (
    MASK,
    SPECIAL,
    Sequences,
    Text,
    encode,
    pretraining_texts,
    telling_words,
    train_vocabulary,
)
from .words import concepts

MASKED = 0.15  # of the tokens
# Of verdicts: to predict them is to understand what came before. Nothing else of such a text is
# hidden.
TELLING = 0.8
SHAPE = EncoderShape(
    vocab_size=0,  # as many words as the texts give
    hidden_size=128, layers=2, num_heads=4, intermediate_size=512,
    max_positions=512, hidden_dropout=0.0, attention_dropout=0.0,
)  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """A packed batch with hidden tokens, and what is asked about it.

    Attributes:
        masked: int64, places in the stream of the hidden tokens; `truth` are the tokens.
        words: int64, places of words of pairs; `alone` is 1 (float) where the word's meaning does
            not occur in the other sentence.
    """

    batch: PackedBatch
    masked: Tensor
    truth: Tensor
    words: Tensor
    alone: Tensor


class Teacher:
    """Turns batches into lessons.

    Args:
        tokenizer: from `train_vocabulary`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._telling = np.array([tokenizer.token_to_id(word) for word in telling_words()])
        meanings = concepts()
        numbers = {concept: i for i, concept in enumerate(dict.fromkeys(meanings.values()), 1)}
        self._concept = np.zeros(tokenizer.get_vocab_size(), dtype=np.int64)  # 0: none
        for word, concept in meanings.items():
            self._concept[tokenizer.token_to_id(word)] = numbers[concept]

    def lesson(self, batch: PackedBatch, rng: np.random.Generator) -> Lesson:
        """Hide tokens of a batch, in place, and compare what can still be seen of its pairs."""
        ids = batch.token_ids.numpy()
        sequence = np.cumsum(batch.positions.numpy() == 0) - 1
        masked = self._choose(ids, sequence, rng)
        truth = ids[masked].copy()
        ids[masked] = MASK
        words, alone = self._compare(batch, sequence)
        return Lesson(batch, *map(torch.from_numpy, (masked, truth, words, alone)))

    def _choose(self, ids: np.ndarray, sequence: np.ndarray, rng: np.random.Generator):
        """Places of the tokens to hide."""
        telling = np.isin(ids, self._telling)
        told = (np.bincount(sequence, telling) > 0)[sequence]
        chance = rng.random(len(ids))
        plain = ~told & (ids >= len(SPECIAL)) & (chance < MASKED)
        return np.flatnonzero(plain | (telling & (chance < TELLING)))

    def _compare(self, batch: PackedBatch, sequence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of the words of pairs, and 1 for those whose meaning the other lacks."""
        concept, segment = self._concept[batch.token_ids.numpy()], batch.segments.numpy()
        paired = (np.bincount(sequence, segment) > 0)[sequence]
        words = np.flatnonzero(paired & (concept > 0))
        key = (sequence * 2 * len(self._concept) + concept)[words]
        side = segment[words] * len(self._concept)
        there = np.isin(key + len(self._concept) - side, key + side)
        return words, (~there).astype(np.float32)


class Objectives(nn.Module):
    """The two heads: hidden tokens through a transform and the word embeddings; words alone."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.transform = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))
        self.alone = nn.Linear(shape.hidden_size, 1)

    def forward(self, encoder: Encoder, lesson: Lesson, dropout: Dropout) -> tuple[Tensor, Tensor]:
        """The two losses: cross-entropy of the hidden tokens, and of words alone or not."""
        first, *rest = encoder.layers
        h = encoder.embeddings(lesson.batch, dropout)
        h = first(h, lesson.batch, NO_ADAPTER, dropout)  # [T, H]
        alone = self.alone(h[lesson.words]).squeeze(-1)
        for layer in rest:
            h = layer(h, lesson.batch, NO_ADAPTER, dropout)
        return (
            F.cross_entropy(self.predict(encoder, h[lesson.masked]), lesson.truth),
            F.binary_cross_entropy_with_logits(alone, lesson.alone),
        )

    def predict(self, encoder: Encoder, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary from last hidden states: [n, H] -> [n, vocabulary]."""
        x = self.norm(F.gelu(self.transform(hidden)))
        return F.linear(x, encoder.embeddings.word.weight, self.bias)


def initialise(encoder: Encoder, objectives: Objectives) -> None:
    """Draw all parameters, for a small encoder that is to compare sentences.

    BERT's 0.02 suits hidden 768; here linears keep the scale of their input. In half of the first
    layer's heads key and query are one map, so that a word looks at its like from the start
    (mimetic initialisation, Trockman & Kolter 2023). No objective reaches the pooler: it stays a
    random projection.
    """
    for module in (*encoder.modules(), *objectives.modules()):
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.7 / math.sqrt(module.in_features))
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    nn.init.normal_(encoder.embeddings.word.weight, std=0.05)
    hidden = encoder.shape.hidden_size
    with torch.no_grad():
        query, key, _ = encoder.layer(0).qkv.weight.split(hidden)
        query[: hidden // 2] *= 1.4
        key[: hidden // 2] = query[: hidden // 2]


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of batches without end: every sequence once before any comes again."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def pretrain(
    data: Sequences,
    teacher: Teacher,
    shape: EncoderShape,
    *,
    steps: int,
    size: int,
    lr: float,
    seed: int,
) -> Encoder:
    """Pretrain an encoder; prints both losses as it goes.

    Args:
        data: at least `size` sequences.
        teacher: what asks about them.
        steps: batches of `size` sequences.
        lr: peak learning rate of AdamW, after a warm-up of a tenth and before a linear decline.
    """
    torch.manual_seed(derive_seed(seed, "initialisation") % 2**63)
    encoder, objectives = Encoder(shape), Objectives(shape)
    initialise(encoder, objectives)
    parameters = [*encoder.parameters(), *objectives.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng, dropout = np.random.default_rng(derive_seed(seed, "masks")), Dropout(seed)
    started, means = time.monotonic(), np.zeros(2)
    for step, chosen in zip(range(steps), batches(len(data.ids), size, rng), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / (steps / 10), (steps - step) / (0.9 * steps))
        batch = pack([data.ids[i] for i in chosen], [data.segment_starts[i] for i in chosen])
        losses = objectives(encoder, teacher.lesson(batch, rng), dropout)
        optimizer.zero_grad()
        sum(losses).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        means += [loss.item() for loss in losses]
        if (step + 1) % 100 == 0:
            seconds, (masked, alone) = time.monotonic() - started, means / 100
            print(f"step {step + 1}/{steps}  masked tokens {masked:.3f}  "
                  f"words alone {alone:.3f}  {seconds:.0f} s", flush=True)  # fmt: skip
            means[:] = 0
    return encoder


def write_folder(folder: Path, encoder: Encoder, tokenizer: Tokenizer) -> None:
    """Write config.json, model.safetensors and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(encoder.shape, folder)
    save_weights(to_hf(encoder.state_dict()), folder / WEIGHTS, metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}) + "\n"
    )


def write_texts(file: Path, texts: list[Text]) -> None:
    """Write texts one a line, a pair's two with a tab between them."""
    lines = ("\t".join(part for part in pair if part) + "\n" for pair in texts)
    file.write_text("".join(lines), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m minbert.demo.pretrain", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--texts", type=int, default=60_000, help="texts to generate")
    parser.add_argument("--save-texts", action="store_true", help="write them as pretraining.txt")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=64, help="texts a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.batch_size > options.texts:
        parser.error("--batch-size: more than there are --texts")
    texts = pretraining_texts(options.texts, options.seed)
    tokenizer = train_vocabulary(texts)
    shape = replace(SHAPE, vocab_size=tokenizer.get_vocab_size())
    data = encode(tokenizer, texts)
    encoder = pretrain(
        data, Teacher(tokenizer), shape, steps=options.steps,
        size=options.batch_size, lr=options.lr, seed=options.seed,
    )  # fmt: skip
    write_folder(options.output, encoder, tokenizer)
    if options.save_texts:
        write_texts(options.output / "pretraining.txt", texts)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
