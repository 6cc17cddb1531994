"""Attention on a GPU: kernels that take sequences of any length, called directly.

Through torch's nested tensors the same kernels cost the host a hundred times as much. The interface
is private to torch, so it is looked at before it is used (:func:`pick`), and nothing else of the
project knows of it. Nothing here waits for the device.

    T tokens   S sequences   N heads   D of a head
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ..packing.pack import Ragged

_FLASH = ("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k", "dropout_p",
          "is_causal", "return_debug_mask", "scale")  # fmt: skip
_EFFICIENT = ("query", "key", "value", "bias", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q",
              "max_seqlen_k", "dropout_p", "custom_mask_type", "compute_log_sumexp",
              "scale")  # fmt: skip
_WIDEST = 256  # D that FlashAttention takes

Kernel = Callable[[Tensor, Tensor, Tensor, Ragged, Ragged, float, float], Tensor]
"""From q, k, v, [T, N, D], where queries and keys lie, a rate and a scale to [T, N, D]."""


def varlen_attention(
    qkv: Tensor,
    where: Ragged,
    heads: int,
    rate: float,
    queries: Tensor | None = None,
    cls_positions: Tensor | None = None,
) -> Tensor:
    """Return what :func:`minbert.model.attention.attention` does: [T, 3H] -> [T, H], or with
    ``queries`` or ``cls_positions`` [S, H].

    Dropout of the weights draws from the device's own generator.
    """
    parts = _split(qkv, heads, 3 if queries is None else 2)
    q, k, v = parts if queries is None else (*_split(queries, heads, 1), *parts)
    if cls_positions is not None:
        q = q.index_select(0, cls_positions)
    asking = where if queries is None and cls_positions is None else where.first_tokens()
    width = qkv.shape[1] // heads // len(parts)
    context = pick(qkv.device, qkv.dtype, k.shape[2])(q, k, v, asking, where, rate, width**-0.5)
    return context[..., :width].flatten(1)


def _split(rows: Tensor, heads: int, count: int) -> tuple[Tensor, ...]:
    """Cut rows into ``count`` tensors [T, N, D]: D is a multiple of eight, as the kernels want."""
    parts = rows.unflatten(1, (count, heads, -1))
    short = -parts.shape[3] % 8
    return (F.pad(parts, (0, short)) if short else parts).unbind(1)


@cache
def pick(device: torch.device, dtype: torch.dtype, width: int) -> Kernel:
    """Return the fastest kernel that is here: FlashAttention (Dao 2023) in half precision,
    memory-efficient attention (Rabe and Staats 2021), or one that pads.

    Args:
        width: D, a multiple of eight.
    """
    if device.type == "meta":  # where nothing is computed, what a new GPU would
        return _flash
    if device.type != "cuda":
        return _padded
    new = torch.cuda.get_device_capability(device) >= (8, 0)
    half = dtype in (torch.bfloat16, torch.float16)
    flash = new and width <= _WIDEST and torch.backends.cuda.is_flash_attention_available()
    if half and flash and _is_known("_flash_attention_forward", _FLASH):
        return _flash
    can = dtype == torch.float32 or (half and (new or dtype == torch.float16))
    return _efficient if can and _is_known("_efficient_attention_forward", _EFFICIENT) else _padded


def why_padded(device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """Say that attention on a GPU pads its sequences, and why; None where it does not.

    Args:
        width: D.
    """
    if device.type != "cuda" or pick(device, dtype, width + -width % 8) is not _padded:
        return None
    return (
        "attention pads its sequences, which makes steps slower: the kernels that need not are not "
        f"for {str(dtype).removeprefix('torch.')} on {torch.cuda.get_device_name(device)} "
        f"by torch {torch.__version__}"
    )


def _is_known(name: str, wanted: tuple[str, ...]) -> bool:
    """Whether torch has an operation whose first arguments, and named ones, are as expected."""
    packet = getattr(torch.ops.aten, name, None)
    if packet is None or "default" not in packet.overloads():
        return False
    arguments = packet.default._schema.arguments
    positional = tuple(a.name for a in arguments if not a.kwarg_only)
    optional = {a.name for a in arguments if a.kwarg_only}
    return positional == wanted[:-1] and wanted[-1] in optional


def _flash(q, k, v, asking: Ragged, where: Ragged, rate: float, scale: float) -> Tensor:
    return torch.ops.aten._flash_attention_forward(
        q, k, v, asking.offsets, where.offsets, asking.longest, where.longest, rate, False, False,
        scale=scale,
    )[0]  # fmt: skip


def _efficient(q, k, v, asking: Ragged, where: Ragged, rate: float, scale: float) -> Tensor:
    if rate:
        # With sequences of any length its backward pass drops other weights than its forward pass:
        # it numbers them by the longest sequence, forward by zero (pytorch issue 115590).
        among_all = len(q) * len(k) <= where.sequences * asking.longest * where.longest
        return (_among_all if among_all else _padded)(q, k, v, asking, where, rate, scale)
    whole = (t.unsqueeze(0) for t in (q, k, v))
    return torch.ops.aten._efficient_attention_forward(
        *whole, None, asking.offsets, where.offsets, asking.longest, where.longest, rate, 0, True,
        scale=scale,
    )[0].squeeze(0)  # fmt: skip


def _among_all(q, k, v, asking: Ragged, where: Ragged, rate: float, scale: float) -> Tensor:
    """The same over all pairs of tokens, those of different sequences barred: for short streams."""
    same = _owners(asking, len(q))[:, None] == _owners(where, len(k))
    q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    mask = same[None, None]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate, scale=scale)
    return out.squeeze(0).transpose(0, 1)


def _owners(where: Ragged, tokens: int) -> Tensor:
    """Return which sequence each token belongs to, int64 [T]."""
    each = torch.arange(tokens, device=where.offsets.device, dtype=where.offsets.dtype)
    return torch.searchsorted(where.offsets[1:], each, right=True)


def _padded(q, k, v, asking: Ragged, where: Ragged, rate: float, scale: float) -> Tensor:
    """The same by the attention that every device has, each sequence padded to the longest."""
    rows, _ = _places(asking, len(q))
    source, real = _places(where, len(k))
    q_rows, k_rows, v_rows = (
        t[at].transpose(1, 2) for t, at in ((q, rows), (k, source), (v, source))
    )
    out = F.scaled_dot_product_attention(
        q_rows, k_rows, v_rows, attn_mask=real[:, None, None], dropout_p=rate, scale=scale
    )
    owner = _owners(asking, len(q))
    within = torch.arange(len(q), device=q.device) - asking.offsets[owner]
    return out.transpose(1, 2)[owner, within]


def _places(where: Ragged, tokens: int) -> tuple[Tensor, Tensor]:
    """Return which token stands in each place of [S, longest], and which places are no padding."""
    begins, ends = where.offsets[:-1, None], where.offsets[1:, None]
    at = begins + torch.arange(where.longest, device=begins.device)
    return at.clamp(max=tokens - 1), at < ends
