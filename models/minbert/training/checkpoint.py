"""Checkpoints: everything a training needs to go on exactly, in safetensors.

A file is written beside and renamed, and carries a digest of its content; the one before is kept
and used if the newest is damaged. A damaged file is set aside, so that it is never kept in the
place of a good one; if none is left, the training begins anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import InputError
from ..evaluation.predictions import TaskPredictions
from .reports import EpochReport

LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
DAMAGED = ".damaged"
"""The ending of a checkpoint that was set aside; there is at most one for each of the names."""

_STRIDE = 1 << 28  # bytes after which the disk is set to work while more are written
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class DamagedError(InputError):
    """A checkpoint cannot be gone on from: its bytes, or what they say, are wrong."""


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
    """Write a snapshot to a file, whole or not at all: what fails leaves the files as they were.

    Args:
        keep: where the file that was there before is moved to, if it is to be kept.

    Raises:
        OSError: it cannot be written; the disk is full, say.
    """
    part = file.with_suffix(".part")
    state = json.dumps(snapshot.state)
    tensors = {name: t.detach().cpu().contiguous() for name, t in snapshot.tensors.items()}
    try:
        _write(tensors, state, part)
        # Between the two renames there is no newest file, but a good one before it.
        if keep is not None and file.exists():
            os.replace(file, keep)
        os.replace(part, file)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(file.parent)


def _write(tensors: Mapping[str, Tensor], state: str, file: Path) -> None:
    """Write the layout of safetensors to the disk, and find the digest meanwhile.

    Not by safetensors' own `save_file`, which wants the digest first: at a gigabyte, hashing,
    copying and waiting for the disk take a second or more each, and an interrupt has few. Nor
    does its error say why a file cannot be written in a way that can be told from others.
    """
    # The largest elements first, so that each begins where its kind may.
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    with file.open("wb") as out, ThreadPoolExecutor(2) as pool:
        digest = pool.submit(_digest, tensors, state)
        out.write(_header(tensors, order, {"state": state, "digest": "0" * 64}))
        syncs, behind = [], 0
        for name in order:
            behind += out.write(_bytes(tensors[name]))
            if behind >= _STRIDE:
                out.flush()
                syncs.append(pool.submit(os.fdatasync, out.fileno()))
                behind = 0
        out.seek(0)
        out.write(_header(tensors, order, {"state": state, "digest": digest.result()}))
        out.flush()
        for sync in syncs:
            sync.result()  # the system says once that a write failed, to whoever asks first
        os.fsync(out.fileno())


def _header(tensors: Mapping[str, Tensor], order: list[str], metadata: dict[str, str]) -> bytes:
    """Return the beginning of a safetensors file: its length, and where each tensor lies."""
    about: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name in order:
        begin, end = end, end + tensors[name].nbytes
        about[name] = {
            "dtype": _DTYPES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(about).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_snapshot(file: Path) -> Snapshot:
    """Read a snapshot and check its digest.

    Raises:
        DamagedError: the file is damaged, or is no checkpoint.
        OSError: the system does not let it be read.
    """
    with file.open("rb"):  # safetensors' own errors do not tell a refusal from a damaged file
        pass
    try:
        with safe_open(file, framework="pt") as source:
            metadata = source.metadata() or {}
            tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118
        state = metadata.get("state", "")
        fits = metadata.get("digest") == _digest(tensors, state)
        parsed = json.loads(state) if fits else None
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DamagedError(f"{file}: not a readable checkpoint ({reason})") from None
    if not fits:
        raise DamagedError(f"{file}: a damaged checkpoint, its digest does not fit its content")
    if not isinstance(parsed, dict):
        raise DamagedError(f"{file}: not a checkpoint, it describes nothing")
    return Snapshot(tensors, parsed)


def _digest(tensors: Mapping[str, Tensor], state: str) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def set_aside(file: Path) -> None:
    """Rename a damaged file, so that it can be looked at and is never taken for a good one."""
    os.replace(file, file.with_suffix(DAMAGED))


def tidy(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder."""
    for file in folder.glob("*.part"):
        if file.is_file():
            file.unlink()


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
