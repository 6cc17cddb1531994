"""What a training step dispatches, counted on tensors without values: no GPU is needed.

Counted is each operation that computes, moves or fills values on the device: what a GPU would be
given a kernel for. Not counted are views, memory without values (``empty``), questions (sizes,
types), and what computes on another device. Of a nested tensor, what it is made of counts; that
there is one is a fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from minbert import Config
from minbert.model.encoder import EncoderShape
from minbert.multitask import build_model
from minbert.packing.buckets import Bucket
from minbert.training.build import Setup
from minbert.training.device_step import DeviceSteps
from minbert.training.step_inputs import StepInputs

META = torch.device("meta")
SHAPE = EncoderShape(100, 32, 12, 2, 64)  # as deep as BERT-base
RECIPES: Mapping[str, dict] = {
    "full": {},
    "lora": {"train.mode": "last-linear-layer", "lora.rank": 4},
}

_WITHOUT_VALUES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided",
                   "_unsafe_view", "_reshape_alias"}  # fmt: skip
# What scaled dot product attention becomes without its kernels: either way it wants padding.
_IN_PARTS = {"_softmax", "_safe_softmax", "_softmax_backward_data"}


class Counted(TorchDispatchMode):
    """Counts what is dispatched while it is entered.

    Attributes:
        by_name: how often each operation came, as ``aten.mm``.
        padded: of these, and of what is not counted, the operations of nested tensors and those
            of attention that needs padding.
    """

    def __init__(self, device: torch.device = META) -> None:
        super().__init__()
        self._device = device.type
        self.by_name: Counter[str] = Counter()
        self.padded: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return sum(self.by_name.values())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.overloadpacket)
        nested = any(kind.__name__ == "NestedTensor" for kind in types)
        if nested or _pads(func.overloadpacket.__name__):
            self.padded[name] += 1
        if nested:
            return NotImplemented  # it dispatches what it is made of, which comes here, too
        result = func(*args, **(kwargs or {}))
        if self._counts(func, args, result):
            self.by_name[name] += 1
        return result

    def _counts(self, func, args, result) -> bool:
        if func.is_view or func.overloadpacket.__name__ in _WITHOUT_VALUES:
            return False
        written = args if func._schema.is_mutable else result
        tensors = (each for each in tree_leaves(written) if isinstance(each, torch.Tensor))
        return any(each.device.type == self._device for each in tensors)


def _pads(name: str) -> bool:
    return name in _IN_PARTS or "nested" in name or name.startswith("_scaled_dot_product")


def count_operations(step: Callable[[], None]) -> Counted:
    """Take a step twice; count what is dispatched in the second, which finds everything made.

    torch picks a kernel for nested tensors without values only while it counts flops: else they
    would end in an error of torch, and not in what is found here.
    """
    counted = Counted()
    with FlopCounterMode(display=False):
        step()
        with counted:
            step()
    return counted


def training_step(keys: Mapping[str, object]) -> Callable[[], None]:
    """Return a GPU's forward and backward pass of a step, on tensors without values."""
    config = Config.from_keys({"train.precision": "bfloat16", **keys})
    with META:
        model = build_model(config, SHAPE)
    # The optimizer, which takes no part, does not know of tensors without values.
    with patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["meta"]):
        steps = DeviceSteps(Setup(config, model, None, META))
    inputs = StepInputs(Bucket(tokens=64, sequences=6, longest=64), steps.tasks, META)

    def step() -> None:
        steps.differentiate(inputs, "sst")

    return step


def measure_operations(steps: Mapping[str, Callable[[], None]] | None = None) -> dict:
    """Count the operations of steps: ``operations`` and ``by_name``; ``faults`` are lines that say
    what is padded."""
    steps = steps or {name: training_step(keys) for name, keys in RECIPES.items()}
    counts = {name: count_operations(step) for name, step in steps.items()}
    return {
        "operations": {name: counted.total for name, counted in counts.items()},
        "by_name": {name: dict(counted.by_name.most_common()) for name, counted in counts.items()},
        "faults": [_fault(name, each.padded) for name, each in counts.items() if each.padded],
    }


def _fault(step: str, padded: Counter[str]) -> str:
    named = ", ".join(f"{name} ({n})" for name, n in padded.most_common(4))
    more = f" and {len(padded) - 4} more" if len(padded) > 4 else ""
    return f"operations of nested or padded tensors in a step ({step}): {named}{more}"
