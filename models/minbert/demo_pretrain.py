"""Pretrain the demo encoder on the demo grammar: ``python -m minbert.demo_pretrain -o DIR``.

BERT's two objectives (Devlin et al. 2018, section 3.1): masked tokens are predicted, and the pooler
tells whether two texts belong together. Text comes from seeds that the corpus does not use; no
label is ever seen. The result is a folder in the Hugging Face layout.
"""

from __future__ import annotations

import argparse
import json
import math
import string
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer, Tokenizer, processors
from torch import Tensor, nn

from . import demo_events, demo_reviews
from .backbone import WEIGHTS, to_hf, write_config
from .encoder import Encoder, EncoderShape
from .noise import Noise, derive_seed
from .packing import PackedBatch, pack

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP, MASK = 2, 3, 4
VOCABULARY = 1500  # at most; the grammar's words, the letters and some pieces of words are fewer
MASKED = 0.2  # of the tokens; BERT's 0.15 learns slower from sentences this short
SHAPE = {
    "hidden_size": 128, "layers": 2, "heads": 4, "intermediate_size": 512,
    "max_positions": 512, "hidden_dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip

Text = tuple[str, str | None]


def pretraining_texts(count: int, seed: int) -> list[Text]:
    """Texts and pairs of texts that belong together, a bit over half of them event pairs."""
    rng = Random(f"pretraining/{seed}")
    return [_draw_text(rng) for _ in range(count)]


def _draw_text(rng: Random) -> Text:
    kind = rng.random()
    if kind < 0.65:
        draw = demo_events.paraphrase_pair if rng.random() < 0.6 else demo_events.similar_pair
        return draw(rng)[:2]
    if kind < 0.85:
        return demo_reviews.finish(demo_reviews.sentence(rng)[0]), None
    first, _, second = demo_reviews.review(rng, rng.random() < 0.5).partition(". ")
    return f"{first}.", second


def train_vocabulary(texts: list[Text]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer in BERT's form, with every printable ASCII character."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator(
        [text for pair in texts for text in pair if text],
        vocab_size=VOCABULARY,
        initial_alphabet=list(string.printable[:94].lower()),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    tokenizer = wordpiece._tokenizer
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    return tokenizer


@dataclass(frozen=True)
class Sequences:
    """Tokenised texts: ids of each, and where the second segment begins."""

    ids: list[np.ndarray]
    seconds: list[int]


def encode(tokenizer: Tokenizer, texts: list[Text]) -> Sequences:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP] for each text."""
    encoded = tokenizer.encode_batch([(a, b) if b else a for a, b in texts])
    return Sequences(
        [np.array(item.ids, dtype=np.int64) for item in encoded],
        [item.type_ids.index(1) if 1 in item.type_ids else len(item.ids) for item in encoded],
    )


@dataclass(frozen=True)
class MaskedBatch:
    """A packed batch with masked tokens.

    Attributes:
        at: int64 [masked], places in the stream to be predicted; `truth` are the tokens there.
        pairs: int64 [pairs], packed sequences that have two segments.
        related: float [pairs], 1 where the second segment belongs to the first.
    """

    batch: PackedBatch
    at: Tensor
    truth: Tensor
    pairs: Tensor
    related: Tensor


def draw_batch(
    data: Sequences, chosen: np.ndarray, vocabulary: int, rng: np.random.Generator
) -> MaskedBatch:
    """Mask a batch of the chosen sequences; in half of the pairs the second is another pair's."""
    ids = [data.ids[i] for i in chosen]
    seconds = [data.seconds[i] for i in chosen]
    pairs = [i for i, second in enumerate(seconds) if second < len(ids[i])]
    strangers = pairs[: len(pairs) // 2]
    tails = [ids[i][seconds[i] :] for i in strangers]
    for i, tail in zip(strangers, tails[1:] + tails[:1], strict=True):
        ids[i] = np.concatenate([ids[i][: seconds[i]], tail])
    batch = pack(ids, seconds)
    at, truth = _mask(batch.token_ids, vocabulary, rng)
    alone = np.isin(batch.order, pairs)
    related = ~np.isin(batch.order[alone], strangers)
    places = torch.from_numpy(np.flatnonzero(alone))
    return MaskedBatch(batch, at, truth, places, torch.from_numpy(related.astype(np.float32)))


def _mask(stream: Tensor, vocabulary: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mask a stream in place: of the chosen, 80 % [MASK], 10 % another token, 10 % as they are."""
    ids = stream.numpy()
    at = np.flatnonzero((ids >= len(SPECIAL)) & (rng.random(len(ids)) < MASKED))
    truth = ids[at].copy()
    kind = rng.random(len(at))
    ids[at[kind < 0.8]] = MASK
    other = at[kind >= 0.9]
    ids[other] = rng.integers(len(SPECIAL), vocabulary, len(other))
    return torch.from_numpy(at), torch.from_numpy(truth)


class Objectives(nn.Module):
    """BERT's two heads: tokens through a transform and the word embeddings, pairs by the pooler."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.transform = nn.Linear(shape.hidden_size, shape.hidden_size)
        self.norm = nn.LayerNorm(shape.hidden_size, eps=shape.norm_eps)
        self.bias = nn.Parameter(torch.zeros(shape.vocab_size))
        self.related = nn.Linear(shape.hidden_size, 1)

    def forward(self, encoder: Encoder, drawn: MaskedBatch, noise: Noise) -> tuple[Tensor, Tensor]:
        """The two losses: cross-entropy of the masked tokens, and of the pairs."""
        hidden = encoder(drawn.batch, noise=noise)
        x = self.norm(F.gelu(self.transform(hidden[drawn.at])))
        logits = F.linear(x, encoder.embeddings.word.weight, self.bias)  # [masked, vocabulary]
        pooled = encoder.pool(hidden, drawn.batch)[drawn.pairs]
        related = self.related(pooled).squeeze(-1)
        return (
            F.cross_entropy(logits, drawn.truth),
            F.binary_cross_entropy_with_logits(related, drawn.related),
        )


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: normal with standard deviation 0.02, biases zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Indices of batches without end: every sequence once before any comes again."""
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def pretrain(
    data: Sequences, shape: EncoderShape, *, steps: int, size: int, lr: float, seed: int
) -> Encoder:
    """Pretrain an encoder; prints both losses as it goes.

    Args:
        data: at least `size` sequences.
        steps: batches of `size` sequences.
        lr: peak learning rate of AdamW, after a warm-up of a tenth and before a linear decline.
    """
    torch.manual_seed(derive_seed(seed, "initialisation") % 2**63)
    encoder, objectives = Encoder(shape), Objectives(shape)
    encoder.apply(initialise)
    objectives.apply(initialise)
    parameters = [*encoder.parameters(), *objectives.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    rng, noise = np.random.default_rng(derive_seed(seed, "masks")), Noise(seed)
    started, means = time.monotonic(), np.zeros(2)
    for step, chosen in zip(range(steps), batches(len(data.ids), size, rng), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / (steps / 10), (steps - step) / (0.9 * steps))
        losses = objectives(encoder, draw_batch(data, chosen, shape.vocab_size, rng), noise)
        optimizer.zero_grad()
        sum(losses).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        means += [loss.item() for loss in losses]
        if (step + 1) % 100 == 0:
            seconds, (masked, pairs) = time.monotonic() - started, means / 100
            print(f"step {step + 1}/{steps}  masked tokens {masked:.3f}"
                  f" (perplexity {math.exp(masked):.1f})  pairs {pairs:.3f}  {seconds:.0f} s",
                  flush=True)  # fmt: skip
            means[:] = 0
    return encoder


def write_folder(folder: Path, encoder: Encoder, tokenizer: Tokenizer, texts: list[Text]) -> None:
    """Write config.json, model.safetensors, vocab.txt, tokenizer.json and the texts."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(encoder.shape, folder)
    save_file(to_hf(encoder.state_dict()), folder / WEIGHTS, metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True}) + "\n"
    )
    lines = ("\t".join(part for part in pair if part) + "\n" for pair in texts)
    (folder / "pretraining.txt").write_text("".join(lines), encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m minbert.demo_pretrain", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--texts", type=int, default=60_000, help="texts to generate")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=96, help="texts a step")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.batch_size > options.texts:
        parser.error("--batch-size: more than there are --texts")
    texts = pretraining_texts(options.texts, options.seed)
    tokenizer = train_vocabulary(texts)
    shape = EncoderShape(vocab_size=tokenizer.get_vocab_size(), **SHAPE)
    encoder = pretrain(
        encode(tokenizer, texts), shape, steps=options.steps, size=options.batch_size,
        lr=options.lr, seed=options.seed,
    )  # fmt: skip
    write_folder(options.output, encoder, tokenizer, texts)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    sys.exit(main())
