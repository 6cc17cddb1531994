"""Checkpoints: everything a training needs to go on exactly, in safetensors.

A file is written beside and renamed, and carries a digest of its content; the one before is kept
and used if the newest is damaged.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import InputError
from .reports import EpochReport, TaskPredictions

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """Tensors with a plain description beside them.

    Attributes:
        tensors: by name.
        state: whatever JSON holds.
    """

    tensors: dict[str, Tensor]
    state: dict


def write_snapshot(snapshot: Snapshot, file: Path, keep: Path | None = None) -> None:
    """Write a snapshot to a file, whole or not at all.

    Args:
        keep: where the file that was there before is moved to, if it is to be kept.
    """
    part = file.with_suffix(".part")
    state = json.dumps(snapshot.state)
    tensors = {name: t.detach().cpu().contiguous() for name, t in snapshot.tensors.items()}
    metadata = {"state": state, "digest": _digest(tensors, state)}
    save_file(tensors, part, metadata=metadata)
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    if keep is not None and file.exists():
        os.replace(file, keep)
    os.replace(part, file)


def read_snapshot(file: Path) -> Snapshot:
    """Read a snapshot and check its digest.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with safe_open(file, framework="pt") as source:
            metadata = source.metadata() or {}
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a readable checkpoint ({error})") from None
    if metadata.get("digest") != _digest(tensors, metadata.get("state", "")):
        raise InputError(f"{file}: a damaged checkpoint, its digest does not fit its content")
    try:
        state = json.loads(metadata["state"])
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a readable checkpoint ({error!r})") from None
    if not isinstance(state, dict):
        raise InputError(f"{file}: not a checkpoint, it describes nothing")
    return Snapshot(tensors, state)


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read_last(folder: Path) -> Snapshot | None:
    """Return the newest checkpoint of a folder that is whole; None if it never had one.

    Raises:
        InputError: there are checkpoints, and none of them is whole.
    """
    problem: InputError | None = None
    for name in (LAST, PREVIOUS):
        if not (folder / name).is_file():
            continue
        try:
            snapshot = read_snapshot(folder / name)
        except InputError as error:
            _log.warning("%s; the one before is used", error)
            problem = error
        else:
            return snapshot
    if problem:
        raise problem
    return None


def best_snapshot(report: EpochReport, weights: Mapping[str, Tensor]) -> Snapshot:
    """Join a report with the weights that it belongs to."""
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    state = {k: v for k, v in vars(report).items() if k != "predictions"}
    state["rows"] = {}
    for name, p in report.predictions.items():
        state["rows"][name] = {"ids": p.ids, "texts": p.texts}
        for part in ("labels", "outputs", "values"):
            tensors[f"predictions/{name}/{part}"] = torch.from_numpy(getattr(p, part)).clone()
    return Snapshot(tensors, state)


def best_weights(snapshot: Snapshot) -> dict[str, Tensor]:
    """Return the trained parameters in a best-epoch snapshot, by name."""
    prefix = "weights/"
    return {k.removeprefix(prefix): t for k, t in snapshot.tensors.items() if k.startswith(prefix)}


def read_best(folder: Path) -> Snapshot:
    """Read the best epoch's snapshot.

    Raises:
        InputError: there was no evaluation yet, or the file is damaged.
    """
    file = Path(folder) / BEST
    if not file.is_file():
        raise InputError(f"{file}: no evaluation has been kept yet")
    return read_snapshot(file)


def load_best(folder: Path) -> EpochReport:
    """Return the report of the best epoch of a training, its dev predictions included.

    Raises:
        InputError: see :func:`read_best`.
    """
    snapshot = read_best(folder)
    fields = dict(snapshot.state)
    rows = fields.pop("rows")
    predictions = {name: _predictions(name, row, snapshot.tensors) for name, row in rows.items()}
    return EpochReport(**fields, predictions=predictions)


def _predictions(name: str, row: dict, tensors: Mapping[str, Tensor]) -> TaskPredictions:
    arrays: dict[str, np.ndarray] = {
        part: tensors[f"predictions/{name}/{part}"].numpy()
        for part in ("labels", "outputs", "values")
    }
    return TaskPredictions(name, row["ids"], [tuple(t) for t in row["texts"]], **arrays)
