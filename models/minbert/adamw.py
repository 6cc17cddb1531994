"""AdamW as torch has it, without the compiler that its methods load."""

from __future__ import annotations

from inspect import unwrap

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW`, with the methods that a training calls as they are inside.

    torch wraps them for torch.compile, and the wrappers import its compiler: more than a second at
    the first optimizer of every process, for what is never compiled here.
    """

    add_param_group = unwrap(Optimizer.add_param_group)
    zero_grad = unwrap(Optimizer.zero_grad)
    step = torch.no_grad()(unwrap(torch.optim.AdamW.step))
