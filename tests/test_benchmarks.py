"""What the benchmarks count, where a figure rests on it.

Room: minbert/model.
"""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minbert.model.dropout import Dropout
from minbert.packing.pack import pack
from minbert.tasks.builtin import get_task
from minbert.training.build import prepare_model
from support import small
from support.paths import REPOSITORY


@pytest.mark.parametrize("lengths", [[7] * 4, [5, 5, 19]])
def test_operations_of_a_step_are_those_that_torch_counts(tmp_path, monkeypatch, lengths):
    """Where nothing is padded: filler in attention is ours to pay for."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    monkeypatch.setattr("minbert.packing.blocks._BLOCK_COST", 0)  # a block for each length
    from products import forward_operations, step_operations

    folder = small.folder(tmp_path)
    model = prepare_model(small.config(folder), folder / "cache", torch.device("cpu"))
    batch = pack([np.arange(5, 5 + n) for n in lengths], lengths, ["sst"] * len(lengths))
    assert not batch.blocks.padded
    shape = model.encoder.shape
    head = 2 * len(lengths) * shape.hidden_size * 5
    with FlopCounterMode(display=False) as forward:
        outputs = model(batch, get_task("sst"), dropout=Dropout(0))
    assert forward.get_total_flops() == forward_operations(shape, np.array(lengths)) + head
    with FlopCounterMode(display=False) as backward:
        outputs.sum().backward()
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both == step_operations(shape, np.array(lengths)) + 3 * head
