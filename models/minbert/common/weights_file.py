"""Tensors in a file that others may read as they may any other file here."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def save_weights(
    tensors: Mapping[str, Tensor], file: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. Its own `save_file` makes one for its owner alone, whatever the
    umask.

    Raises:
        safetensors.SafetensorError, OSError: it cannot be written.
    """
    file.touch()
    mode = stat.S_IMODE(file.stat().st_mode)  # as the umask and the folder have it
    save_file(dict(tensors), file, metadata=metadata)
    if stat.S_IMODE(file.stat().st_mode) != mode:
        file.chmod(mode)
