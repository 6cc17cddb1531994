"""What a GPU computes, on a CPU: attention of variable lengths, and dropout by torch's kernels.

Whether a step waits for the device is seen on the ``meta`` device: its tensors have no values, so
whoever asks for one fails.

Room: minbert/packing, minbert/model.
"""

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minbert.model import varlen_attention as kernels
from minbert.model.attention import attention
from minbert.model.device_dropout import DeviceDropout
from minbert.model.dropout import Dropout
from minbert.model.encoder import EncoderShape
from minbert.multitask import build_model
from minbert.packing.buckets import Bucket
from minbert.packing.pack import pack
from minbert.packing.ragged import send, to_device
from minbert.tasks.builtin import get_task
from minbert.training.build import Setup, prepare_model
from minbert.training.device_step import DeviceSteps
from minbert.training.step_inputs import StepInputs
from support import small

CPU, META = torch.device("cpu"), torch.device("meta")
HEADS, DIM = 2, 8
RECIPES = [
    {},
    {"lora.rank": 2, "train.mode": "last-linear-layer"},
    {"pals.kind": "mixed"},
    {"pals.kind": "pals", "pals.tasks": ["sst"], "pals.placement": "alternative"},
]


def packed(lengths, tasks=("sst",), fill=True, ragged=False):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 20, size=n) for n in lengths]
    named = [tasks[i % len(tasks)] for i in range(len(lengths))]
    return pack(sequences, [max(1, n // 2) for n in lengths], named, fill, ragged=ragged)


def ragged(lengths, tasks=("sst",)):
    """The same batch as a GPU wants it."""
    return packed(lengths, tasks, fill=False, ragged=True)


def a_model(tmp_path, recipe):
    folder = small.folder(tmp_path)
    model = prepare_model(small.config(folder, **recipe), folder / "cache", CPU)
    adapters = [each for each in (model.lora, model.pals) if each is not None]
    for p in (p for adapter in adapters for p in adapter.parameters()):
        torch.nn.init.normal_(p, std=0.3)
    return model


# ---- the batch


def test_a_batch_for_a_device_says_the_same():
    given = packed([5, 9, 30, 3, 9], ("sst", "para"))
    sent = ragged([5, 9, 30, 3, 9], ("sst", "para"))
    assert len(given.token_ids) == 64 and len(sent.token_ids) == sent.tokens == 56
    for name in ("token_ids", "segments", "positions"):
        assert getattr(sent, name).dtype == torch.int32
        assert torch.equal(getattr(sent, name), getattr(given, name)[:56])
    assert torch.equal(sent.cls_positions, given.cls_positions)
    assert sent.blocks[1:3] == (5, 30)
    assert sent.blocks.offsets.tolist() == [*given.cls_positions.tolist(), 56]
    assert [span[:4] for span in sent.spans] == [("para", 0, 12, 2), ("sst", 12, 56, 3)]
    assert [span.blocks.offsets.tolist() for span in sent.spans] == [[0, 3, 12], [0, 5, 14, 44]]
    assert torch.equal(sent.owners, given.owners[:56])


def test_where_the_batch_is_told_by_the_device():
    given = packed([4, 7])
    assert to_device(given, CPU) is given
    sent = to_device(ragged([4, 7]), META)
    (span,) = sent.spans
    assert all(t.is_meta for t in (sent.token_ids, sent.blocks.offsets, span.blocks.offsets))
    assert span.blocks[1:3] == sent.blocks[1:3] == (2, 7)
    assert [t.shape for t in send((torch.zeros(3), torch.ones(2)), META)] == [(3,), (2,)]
    with pytest.raises(TypeError, match="ragged=True"):
        to_device(given, META)


# ---- attention


@pytest.mark.parametrize("lengths", [[5, 9, 30, 33, 34, 200, 3], [7] * 4, [3, 90], [1], [1, 1, 4]])
@pytest.mark.parametrize("cls_only", [False, True])
@pytest.mark.parametrize("dim", [DIM, 17])
def test_attention_is_that_of_groups(lengths, cls_only, dim):
    batch = packed(lengths)
    qkv = torch.randn(len(batch.token_ids), 3 * HEADS * dim, dtype=torch.float64)
    qkv.requires_grad_(True)
    given, queries = qkv, None
    if cls_only:
        given, queries = qkv[:, HEADS * dim :], qkv[batch.cls_positions, : HEADS * dim]
    wanted = attention(given, batch.blocks, HEADS, queries=queries)
    wanted = wanted[: None if cls_only else batch.tokens]
    where = ragged(lengths).blocks
    slope = torch.randn_like(wanted)
    (theirs,) = torch.autograd.grad((wanted * slope).sum(), qkv, retain_graph=True)
    ways = [lambda: attention(given[: batch.tokens], where, HEADS, queries=queries)]
    if cls_only:  # of all queries, those of the first tokens
        on = ragged(lengths).cls_positions
        ways += [lambda: attention(qkv[: batch.tokens], where, HEADS, cls_positions=on)]
    for way in ways:
        got = way()
        torch.testing.assert_close(got, wanted)
        (mine,) = torch.autograd.grad((got * slope).sum(), qkv, retain_graph=True)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("lengths", [[5, 9, 30, 3], [1], [1, 1, 4]])
def test_among_all_tokens_and_padded_it_is_the_same(lengths):
    where = ragged(lengths).blocks
    q, k, v = torch.randn(3, sum(lengths), HEADS, DIM, dtype=torch.float64)
    for asking, queries in ((where, q), (where.first_tokens(), q[where.offsets[:-1]])):
        given = queries, k, v, asking, where, 0.0, 0.4
        one, other = kernels._among_all(*given), kernels._padded(*given)
        torch.testing.assert_close(one, other)


def test_attention_drops_where_there_is_noise():
    """Each weight is kept or dropped: with values of one, an output is a mean of what is kept."""
    where = ragged([64]).blocks
    qkv = torch.zeros(64, 3 * HEADS * DIM)
    qkv[:, 2 * HEADS * DIM :] = 1
    assert torch.allclose(attention(qkv, where, HEADS, 0.25), torch.ones(64, HEADS * DIM))
    kept = attention(qkv, where, HEADS, 0.25, DeviceDropout(3)) * 64 * 0.75
    torch.testing.assert_close(kept, kept.round(), atol=1e-4, rtol=0)
    assert kept.std() > 1 and abs(kept.mean() / 64 - 0.75) < 0.03


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tasks", [("sst",), ("sst", "para")])
def test_a_model_computes_what_it_does_on_a_cpu(tmp_path, recipe, tasks):
    model, found = a_model(tmp_path, recipe).double(), []
    lengths = [5, 9, 30, 3, 9]
    for batch in (packed(lengths, tasks), ragged(lengths, tasks)):
        model.zero_grad()
        outputs = model(batch, get_task("sst"))
        outputs.square().sum().backward()
        found.append((outputs, {n: p.grad for n, p in model.trained().items()}))
    (wanted, gradients), (got, mine) = found
    torch.testing.assert_close(got, wanted)
    for name, gradient in gradients.items():
        torch.testing.assert_close(mine[name], gradient)


# ---- dropout


def test_a_device_drops_at_the_rate():
    dropout = DeviceDropout(3)
    x = torch.ones(1000, 257)
    for out in (dropout.apply(x, 0.3), dropout.add(torch.zeros_like(x), x, 0.3)):
        assert abs((out != 0).float().mean().item() - 0.7) < 0.003
        torch.testing.assert_close(out.max().item(), 1 / 0.7)
    half = dropout.add(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bfloat16), 0.5)
    assert half.dtype == torch.float32


def test_a_device_draws_the_same_again(tmp_path):
    """From the seed, and from a state: attention's dropout, too."""
    model, batch = a_model(tmp_path, {}), ragged([5, 9, 30])

    def outputs(dropout):
        return model(batch, get_task("sst"), dropout=dropout)

    dropout = DeviceDropout(3)
    first, state, second = outputs(dropout), dropout.state(), outputs(dropout)
    assert not torch.equal(first, second)
    assert torch.equal(outputs(DeviceDropout(3)), first)
    dropout = DeviceDropout(4)
    assert not torch.equal(outputs(dropout), first)
    dropout.load_state(state)
    assert torch.equal(outputs(dropout), second)


def test_a_state_of_another_device_is_refused():
    cpu, device = Dropout(1), DeviceDropout(1)
    for mine, other in ((cpu, device), (device, cpu)):
        with pytest.raises(ValueError, match="bytes; dropout's has"):
            mine.load_state(other.state())


# ---- nothing is waited for


def meta_step(recipe) -> Counter:
    """Take a training step without values; return the operations that it dispatched."""
    config = small.config(Path("nowhere"), **recipe)
    with META:
        model = build_model(config, EncoderShape(30, 16, 2, 2, 32, max_positions=64))
    steps = DeviceSteps(Setup(config, model, None, META))
    inputs = StepInputs(Bucket(64, 6, 64), steps.tasks, META)
    batch = ragged([5, 9, 30, 3])
    inputs.fill(batch, np.zeros(4, dtype=np.float32), get_task("sst"), 0.1)
    with Dispatched() as names:
        steps.compute(inputs, "sst")
    return names.counted


class Dispatched(TorchDispatchMode):
    """Counts operations by name, those of the backward pass and of optimizers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counted[func._schema.name] += 1
        if func._schema.name == "aten::_fused_adamw_":  # changes its arguments, has no meta kernel
            return None
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "recipe",
    [*RECIPES, {"train.grad_clip": 1.0, "train.weight_decay": 0.1},
     {"smart.lambda": 1.0, "smart.mode": "adversarial", "smart.proximal": 0.1},
     {"smart.lambda": 1.0, "smart.mode": "noise", "smart.norm": "l2"}],
)  # fmt: skip
def test_a_step_waits_for_nothing(recipe, monkeypatch):
    """Nor does it pad. The optimizer would not take tensors without values: it is told to."""
    optimizer = sys.modules["torch.optim.optimizer"]
    monkeypatch.setattr(optimizer, "_get_fused_kernels_supported_devices", lambda: ["meta"])
    counted = meta_step(recipe)
    assert counted["aten::_flash_attention_forward"] >= 2
    assert counted["aten::_flash_attention_forward"] >= counted["aten::_flash_attention_backward"]
    assert counted["aten::_flash_attention_backward"] >= 2
    assert counted["aten::_fused_adamw_"] >= 1
    padding = [name for name in counted if "_scaled_dot" in name or "nested" in name]
    assert not padding and not counted["aten::_local_scalar_dense"]


def test_whoever_asks_for_a_value_fails():
    """What the test above rests on."""
    for ask in (torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask(torch.empty(1, device=META))
