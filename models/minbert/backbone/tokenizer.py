"""The backbone's WordPiece tokenizer (in Rust), set up for packed batches: no padding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import BertWordPieceTokenizer, Tokenizer

from ..errors import InputError
from .weights import tokenizer_files


def load_tokenizer(folder: Path, max_length: int, vocab_size: int) -> Tokenizer:
    """Load a backbone's tokenizer; it cuts sequences at ``max_length`` tokens and pads nothing.

    Raises:
        InputError: the file is damaged, or its vocabulary is larger than the encoder's or has
            nothing for unknown words.
    """
    file, *settings = tokenizer_files(folder)
    try:
        tokenizer = _from_file(file, *settings)
    except Exception as error:  # noqa: BLE001 - the library raises plain Exception
        raise InputError(f"{file}: not a readable tokenizer ({error})") from None
    if tokenizer.get_vocab_size() > vocab_size:
        raise InputError(
            f"{file}: {tokenizer.get_vocab_size()} word pieces, but the encoder has {vocab_size}"
        )
    unknown = getattr(tokenizer.model, "unk_token", None)
    if unknown is not None and tokenizer.token_to_id(unknown) is None:
        raise InputError(f"{file}: {unknown}, for unknown words, is not in the vocabulary")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    return tokenizer


def _from_file(file: Path, settings: Path | None = None) -> Tokenizer:
    if file.suffix == ".json":
        return Tokenizer.from_file(str(file))
    lower = True
    if settings is not None:
        lower = bool(json.loads(settings.read_text("utf-8")).get("do_lower_case", True))
    return BertWordPieceTokenizer(str(file), lowercase=lower)._tokenizer


def tokenize(
    tokenizer: Tokenizer, texts: list[tuple[str, ...]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Tokenise sentences or pairs: [CLS] a [SEP], or [CLS] a [SEP] b [SEP].

    Returns:
        The token ids of each, int32; and where each one's second segment begins, int32.
    """
    inputs = [text[0] if len(text) == 1 else text for text in texts]
    encodings = tokenizer.encode_batch(inputs)
    ids = [np.array(e.ids, dtype=np.int32) for e in encodings]
    starts = [len(e.type_ids) - sum(e.type_ids) for e in encodings]
    return ids, np.array(starts, dtype=np.int32)
