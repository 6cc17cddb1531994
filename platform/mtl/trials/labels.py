"""What a trial is called wherever it is shown: by its label, else by what distinguishes it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

_SEED = "train.seed"
_SHORT = {
    "lora.rank": "r",
    "lora.alpha": "α",
    "train.lr": "lr",
    _SEED: "seed",
    "smart.lambda": "λ",
    "smart.alpha": "smart.alpha",  # α is LoRA's
    "smart.mode": "smart.mode",
    "schedule.anneal": "c",
    "pals.kind": "PALs",
}


def short_key(key: str) -> str:
    """Return the short name of a configuration key: ``r`` for ``lora.rank``."""
    return _SHORT.get(key, key.rpartition(".")[2])


def short_value(value: object) -> str:
    """Return a value with the three digits that tell trials apart."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def trial_label(values: Mapping[str, object], label: str | None = None) -> str:
    """Write what a trial was given: its label and seed, or ``r=4 α=8``.

    Args:
        values: the keys that distinguish it.
        label: its name in the study file; it stands for all of them but the seed.
    """
    seed = [key for key in values if key == _SEED]  # last: it says least
    told = seed if label else [key for key in values if key != _SEED] + seed
    pairs = [f"{short_key(key)}={short_value(values[key])}" for key in told]
    return " ".join([label, *pairs] if label else pairs)


def run_name(number: int | None, given: str) -> str:
    """Name a run: ``trial 7 · r=4 α=8``."""
    name = "training" if number is None else f"trial {number}"
    return f"{name} · {given}" if given else name


def folder_name(study: str) -> str:
    """Return a folder's name for a study's name, which may hold anything; different for each."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in study)[:60]
    return plain if plain == study else f"{plain}-{sha256(study.encode()).hexdigest()[:8]}"
