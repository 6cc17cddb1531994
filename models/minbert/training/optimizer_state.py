"""Optimizers' state in a checkpoint: each parameter's moments, by its name.

A processor trains the word embedding by row, whose moments lag behind; a device trains it as a
whole. Either goes on from the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping

import numpy as np
import torch
from torch import Tensor, nn

from .optimizers import RowAdamW

Rates = Callable[[np.ndarray], np.ndarray]
States = MutableMapping[Tensor, dict[str, Tensor]]


def optimizer_tensors(
    parameters: Mapping[str, nn.Parameter], states: Mapping[Tensor, dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return the state of parameters, by ``optimizer/<part>/<name>``."""
    return {
        f"optimizer/{part}/{name}": value
        for name, p in parameters.items()
        for part, value in states.get(p, {}).items()
    }


def load_optimizer(
    parameters: Mapping[str, nn.Parameter],
    states: States,
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, RowAdamW],
    rates: Rates,
) -> None:
    """Put a checkpoint's tensors into the states of parameters, and into those kept by row.

    Weights are already loaded.

    Args:
        rates: the learning rates of steps, see :class:`RowAdamW`.

    Raises:
        KeyError: a part is missing.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        if key.startswith("optimizer/"):
            _, part, name = key.split("/", 2)
            found.setdefault(name, {})[part] = tensors[key]
    for name, by_row in rows.items():
        by_row.load(_by_row(found[name], len(by_row.weight)))
    for name, p in parameters.items():
        for part, value in _whole(found.get(name, {}), p, rates).items():
            # The fused kernel wants the number of steps on the device, too.
            states[p][part] = value.clone().to(p.device)


def _by_row(parts: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return moments for training by row: all rows of a whole stand at its last step."""
    if "reached" in parts:
        return parts
    reached = torch.full((count,), int(parts["step"]), dtype=torch.int64)
    reached[(parts["exp_avg_sq"] == 0).all(1)] = 0  # never had a gradient: they do not move
    return parts | {"reached": reached}


@torch.no_grad()
def _whole(parts: dict[str, Tensor], p: nn.Parameter, rates: Rates) -> dict[str, Tensor]:
    """Return moments for training as a whole: rows that lag behind are brought to the last step,
    and the weight with them."""
    if "reached" not in parts:
        return parts
    by_row = RowAdamW(nn.Parameter(p.detach().cpu().clone()), rates)
    by_row.load(parts)
    by_row.catch_up()
    p.copy_(by_row.weight)
    moments = by_row.tensors()
    return {part: moments[part] for part in ("step", "exp_avg", "exp_avg_sq")}
