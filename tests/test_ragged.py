"""What a GPU computes, on a CPU: attention of variable lengths, and dropout by torch's kernels.

Whether a step waits for the device is seen on the ``meta`` device: its tensors have no values, so
whoever asks for one fails.

Room: minbert/packing, minbert/model.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minbert.model.attention import attention
from minbert.model.dropout import DeviceDropout, Dropout
from minbert.model.encoder import EncoderShape
from minbert.multitask import build_model, task_loss
from minbert.packing.pack import Ragged, pack
from minbert.packing.ragged import ragged, send, to_device
from minbert.tasks.builtin import get_task
from minbert.training.build import prepare_model
from minbert.training.optimizers import AdamW
from minbert.training.smart import Smart
from support import small

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")

CPU, META = torch.device("cpu"), torch.device("meta")
HEADS, DIM = 2, 8
RECIPES = [
    {},
    {"lora.rank": 2, "train.mode": "last-linear-layer"},
    {"pals.kind": "mixed"},
    {"pals.kind": "pals", "pals.tasks": ["sst"], "pals.placement": "alternative"},
]


def packed(lengths, tasks=("sst",), fill=True):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 20, size=n) for n in lengths]
    named = [tasks[i % len(tasks)] for i in range(len(lengths))]
    return pack(sequences, [max(1, n // 2) for n in lengths], named, fill)


def a_model(tmp_path, recipe):
    folder = small.folder(tmp_path)
    model = prepare_model(small.config(folder, **recipe), folder / "cache", CPU)
    adapters = [each for each in (model.lora, model.pals) if each is not None]
    for p in (p for adapter in adapters for p in adapter.parameters()):
        torch.nn.init.normal_(p, std=0.3)
    return model


# ---- the batch


def test_a_batch_comes_over_whole_and_without_filler():
    given = packed([5, 9, 30, 3, 9], ("sst", "para"))
    sent = ragged(given, CPU)
    assert len(given.token_ids) == 64 and len(sent.token_ids) == sent.tokens == 56
    for name in ("token_ids", "segments", "positions"):
        assert torch.equal(getattr(sent, name), getattr(given, name)[:56])
    assert torch.equal(sent.cls_positions, given.cls_positions)
    assert sent.blocks[1:] == Ragged(None, 5, 3, 30)[1:]
    assert sent.blocks.offsets.tolist() == [*given.cls_positions.tolist(), 56]
    assert [span[:4] for span in sent.spans] == [("para", 0, 12, 2), ("sst", 12, 56, 3)]
    assert [span.blocks.offsets.tolist() for span in sent.spans] == [[0, 3, 12], [0, 5, 14, 44]]
    assert torch.equal(sent.owners, given.owners[:56])


def test_where_the_batch_is_told_by_the_device():
    given = packed([4, 7])
    assert to_device(given, CPU) is given
    sent = to_device(given, META)
    (span,) = sent.spans
    assert all(t.is_meta for t in (sent.token_ids, sent.blocks.offsets, span.blocks.offsets))
    assert span.blocks[1:] == sent.blocks[1:] == (2, 4, 7)
    assert [t.shape for t in send((torch.zeros(3), torch.ones(2)), META)] == [(3,), (2,)]


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
    got = attention(given[: batch.tokens], ragged(batch, CPU).blocks, HEADS, queries=queries)
    torch.testing.assert_close(got, wanted)
    slope = torch.randn_like(got)
    (mine,) = torch.autograd.grad((got * slope).sum(), qkv, retain_graph=True)
    (theirs,) = torch.autograd.grad((wanted * slope).sum(), qkv)
    torch.testing.assert_close(mine, theirs)


def test_attention_drops_where_there_is_noise():
    """Each weight is kept or dropped: with values of one, an output is a mean of what is kept."""
    where = ragged(packed([64]), CPU).blocks
    qkv = torch.zeros(64, 3 * HEADS * DIM)
    qkv[:, 2 * HEADS * DIM :] = 1
    assert torch.allclose(attention(qkv, where, HEADS, 0.25), torch.ones(64, HEADS * DIM))
    kept = attention(qkv, where, HEADS, 0.25, DeviceDropout(3, CPU)) * 64 * 0.75
    torch.testing.assert_close(kept, kept.round(), atol=1e-4, rtol=0)
    assert kept.std() > 1 and abs(kept.mean() / 64 - 0.75) < 0.03


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("tasks", [("sst",), ("sst", "para")])
def test_a_model_computes_what_it_does_on_a_cpu(tmp_path, recipe, tasks):
    model, found = a_model(tmp_path, recipe).double(), []
    given = packed([5, 9, 30, 3, 9], tasks)
    for batch in (given, ragged(given, CPU)):
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
    dropout = DeviceDropout(3, CPU)
    x = torch.ones(1000, 257)
    for out in (dropout.apply(x, 0.3), dropout.add(torch.zeros_like(x), x, 0.3)):
        assert abs((out != 0).float().mean().item() - 0.7) < 0.003
        torch.testing.assert_close(out.max().item(), 1 / 0.7)
    half = dropout.add(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bfloat16), 0.5)
    assert half.dtype == torch.float32


def test_a_device_draws_the_same_again(tmp_path):
    """From the seed, and from a state: attention's dropout, too."""
    model, batch = a_model(tmp_path, {}), ragged(packed([5, 9, 30]), CPU)

    def outputs(dropout):
        return model(batch, get_task("sst"), dropout=dropout)

    dropout = DeviceDropout(3, CPU)
    first, state, second = outputs(dropout), dropout.state(), outputs(dropout)
    assert not torch.equal(first, second)
    assert torch.equal(outputs(DeviceDropout(3, CPU)), first)
    dropout = DeviceDropout(4, CPU)
    assert not torch.equal(outputs(dropout), first)
    dropout.load_state(state)
    assert torch.equal(outputs(dropout), second)


def test_a_state_of_another_device_is_refused():
    cpu, device = Dropout(1), DeviceDropout(1, CPU)
    for mine, other in ((cpu, device), (device, cpu)):
        with pytest.raises(ValueError, match="bytes; dropout's has"):
            mine.load_state(other.state())


# ---- nothing is waited for


def meta_step(config, smart: bool):
    """Take a training step without values; return the operations that it multiplied by."""
    shape = EncoderShape(30, 16, 2, 2, 32, max_positions=64)
    with META:
        model = build_model(config, shape)
    optimizer = AdamW(model.trained().values(), lr=0.1)
    dropout, task = DeviceDropout(1, CPU), get_task("sst")
    batch = to_device(packed([5, 9, 30, 3]), META)
    (labels,) = send((torch.zeros(4),), META)
    with FlopCounterMode(display=False) as counted:
        if smart:
            outputs, extra = Smart(config.smart, model, 0, CPU).losses(batch, task, dropout)
        else:
            outputs, extra = model(batch, task, dropout=dropout), 0.0
        (task_loss(task, outputs, labels) + extra).backward()
    optimizer.step()
    assert all(p.grad is not None for n, p in model.trained().items() if "sst" in n)
    return counted.get_flop_counts()["Global"]


@pytest.mark.parametrize(
    "recipe",
    [*RECIPES, {"smart.lambda": 1.0, "smart.mode": "adversarial", "smart.proximal": 0.1}],
)
def test_a_step_waits_for_nothing(recipe):
    config = small.config(Path("nowhere"), **recipe)
    flops = meta_step(config, config.smart.on)
    names = {str(each) for each in flops}
    assert {"aten._flash_attention_forward", "aten._flash_attention_backward"} <= names
    assert not any("_scaled_dot" in name for name in names)  # what would pad


def test_whoever_asks_for_a_value_fails():
    """What the test above rests on."""
    for ask in (torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            ask(torch.empty(1, device=META))
