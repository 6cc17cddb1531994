"""Where and how a training computes: device and precision."""

from __future__ import annotations

import torch

from .errors import InputError


def pick_device(name: str) -> torch.device:
    """Return the device that ``train.device`` means; auto takes CUDA where there is some.

    Raises:
        InputError: CUDA was asked for and there is none, or not that many.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"train.device: {name!r} is not here; this machine has {torch.cuda.device_count()} "
            "CUDA devices, use auto or cpu"
        )
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16 (on a CPU: AMX or AVX512-BF16)."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the type that matrix products run in."""
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) else "float32"
    return getattr(torch, precision)


def keeps_kernels(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether matrix products prepare a kernel for each shape and keep it: few should occur.

    oneDNN's do, which multiply bfloat16; they keep 1,024.
    """
    return device.type == "cpu" and dtype == torch.bfloat16
