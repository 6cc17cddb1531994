"""Whether a backbone can be used, before anything is built on it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..model.encoder import EncoderShape
from .tokenizer import load_tokenizer
from .weights import (
    WEIGHTS,
    backbone_digest,
    find_backbone,
    load_encoder_state,
    read_shape,
    tokenizer_file,
)


@dataclass(frozen=True)
class BackboneReport:
    """What :func:`check_backbone` found: everything loads, every key and shape is right."""

    name: str
    folder: Path
    shape: EncoderShape
    parameters: int
    digest: str
    tokenizer: Path
    pulled: dict | None


def check_backbone(name: str, cache_dir: Path | None = None) -> BackboneReport:
    """Load a backbone whole and report what it is.

    Raises:
        InputError: what is wrong with it, in one line.
    """
    folder = find_backbone(name, cache_dir)
    state = load_encoder_state(folder)
    shape = read_shape(folder)
    load_tokenizer(folder, shape.max_positions, shape.vocab_size)
    digest = backbone_digest(name, cache_dir)
    note = folder / "pulled.json"
    pulled = _read_note(note, name) if note.is_file() else None
    if pulled and pulled["sha256"][WEIGHTS] != digest:
        raise InputError(
            f"{folder / WEIGHTS}: differs from what was pulled (sha256 {digest[:12]}…); "
            f"run: mtl backbone pull {name}"
        )
    parameters = sum(t.numel() for t in state.values())
    return BackboneReport(name, folder, shape, parameters, digest, tokenizer_file(folder), pulled)


def _read_note(note: Path, name: str) -> dict:
    """Return what was pulled, the digest of the weights in it."""
    try:
        pulled = json.loads(note.read_text("utf-8"))
        _ = pulled["sha256"][WEIGHTS]
    except (OSError, ValueError, LookupError, TypeError) as error:
        again = f"run: mtl backbone pull {name}"
        raise InputError(f"{note}: cannot be read ({error}); {again}") from None
    return pulled
