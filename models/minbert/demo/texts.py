"""What the demo encoder is pretrained on: texts of the demo grammar, and their vocabulary."""

from __future__ import annotations

import string
from dataclasses import dataclass
from random import Random

import numpy as np
from tokenizers import BertWordPieceTokenizer, Tokenizer, processors

from . import events, reviews
from .words import VERDICTS, concepts

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP, MASK = 2, 3, 4
VOCABULARY = 1500  # at most; the grammar's words, the letters and some pieces of words are fewer

Text = tuple[str, str | None]


def pretraining_texts(count: int, seed: int) -> list[Text]:
    """Texts and pairs of texts that belong together, a bit over half of them event pairs."""
    rng = Random(f"pretraining/{seed}")
    return [_draw_text(rng) for _ in range(count)]


def _draw_text(rng: Random) -> Text:
    kind = rng.random()
    if kind < 0.65:
        draw = events.paraphrase_pair if rng.random() < 0.6 else events.similar_pair
        pair = draw(rng)
        return pair.first, pair.second
    if kind < 0.95:
        return _judged(rng, rng.randrange(reviews.GRADES)), None
    return reviews.review(rng, rng.random() < 0.5), None


def _judged(rng: Random, wanted: int) -> str:
    """A sentence of a review, mostly with the verdict that follows from it."""
    sentence = reviews.graded_sentence(rng, wanted)
    return f"{sentence} {reviews.verdict(rng, wanted)}" if rng.random() < 0.8 else sentence


def telling_words() -> list[str]:
    """Return the words of verdicts: to predict them is to understand what came before."""
    return [word for group in VERDICTS for word in group]


def train_vocabulary(texts: list[Text]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer in BERT's form, with every printable ASCII character."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    lexicon = [" ".join([*concepts(), *telling_words()])] * 9  # few texts lack some words
    wordpiece.train_from_iterator(
        lexicon + [text for pair in texts for text in pair if text],
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
    segment_starts: list[int]


def encode(tokenizer: Tokenizer, texts: list[Text]) -> Sequences:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP] for each text."""
    encoded = tokenizer.encode_batch([(a, b) if b else a for a, b in texts])
    return Sequences(
        [np.array(item.ids, dtype=np.int64) for item in encoded],
        [item.type_ids.index(1) if 1 in item.type_ids else len(item.ids) for item in encoded],
    )
