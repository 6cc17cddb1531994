"""Attention over blocks of near-equal lengths, filler, and the last layer for [CLS] alone.

Room: minbert/model.
"""

import numpy as np
import pytest
import torch

from minbert.model.attention import attention
from minbert.model.dropout import Dropout
from minbert.model.dropout_mask import DropoutMask
from minbert.packing.pack import pack
from minbert.tasks.builtin import get_task
from minbert.training.build import prepare_model
from support import small

HEADS, DIM = 2, 6
LENGTHS = [[5, 9, 30, 33, 34, 200, 3], [7] * 4, [3, 90], [1], [1, 1, 4]]


def packed(lengths, fill=False, level=False):
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 20, size=n) for n in lengths]
    return pack(sequences, [max(1, n // 2) for n in lengths], ["sst"] * len(lengths), fill, level)


class Given(Dropout):
    """Masks drawn once for each place of a sequence's attention, whatever the blocks are."""

    def __init__(self, batch):
        super().__init__(0)
        self.longest = {block.longest for block in batch.blocks}
        stream = torch.Generator().manual_seed(2)
        self.whole = (torch.rand(HEADS, 200, 200, generator=stream) > 0.3).double() / 0.7

    def draw(self, shape, rate):
        rows, queries, keys = shape
        assert keys in self.longest  # padding is not drawn for
        mask = self.whole[:, :queries, :keys].repeat(rows // HEADS, 1, 1)
        return DropoutMask(np.flatnonzero(mask == 0))


def by_hand(qkv, batch, mask):
    """One sequence after the other, softmax(q k / sqrt(d)) v spelt out."""
    out, lengths = [], np.diff([*batch.cls_positions.tolist(), batch.tokens])
    for first, length in zip(batch.cls_positions.tolist(), lengths, strict=True):
        q, k, v = qkv[first : first + length].view(length, 3, HEADS, DIM).permute(1, 2, 0, 3)
        weights = (q @ k.transpose(1, 2) / DIM**0.5).softmax(-1)
        weights = weights if mask is None else weights * mask[:, :length, :length]
        out.append((weights @ v).transpose(0, 1).reshape(length, -1))
    return torch.cat(out)


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("cls_only", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("level", [False, True])
def test_groups_compute_what_each_sequence_alone_does(lengths, cls_only, dropped, level):
    batch = packed(lengths, fill=True, level=level)
    dropout = Given(batch) if dropped else None
    qkv = torch.randn(len(batch.token_ids), 3 * HEADS * DIM, dtype=torch.float64)
    qkv.requires_grad_(True)
    given, queries = qkv, None
    if cls_only:
        given, queries = qkv[:, HEADS * DIM :], qkv[batch.cls_positions, : HEADS * DIM]
    got = attention(given, batch.blocks, HEADS, 0.3, dropout, queries)
    wanted = by_hand(qkv, batch, dropout.whole if dropped else None)
    wanted = wanted[batch.cls_positions] if cls_only else wanted
    torch.testing.assert_close(got[: len(wanted)], wanted)
    assert not got[len(wanted) :].any()  # filler
    slope = torch.randn_like(got)
    (mine,) = torch.autograd.grad((got * slope).sum(), qkv)
    (theirs,) = torch.autograd.grad((wanted * slope[: len(wanted)]).sum(), qkv)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_task_s_long_sequences_may_come_before_another_s_short_ones(dropped):
    sequences = [np.arange(5, 5 + n) for n in (30, 28, 3, 4, 9)]
    tasks = ["para", "para", "sst", "sts", "sts"]
    batch = pack(sequences, [2] * 5, tasks)
    assert sum(block.lengths.sum() for block in batch.blocks) == batch.tokens == 74
    assert all(block.lengths.max() == block.longest for block in batch.blocks)
    dropout = Given(batch) if dropped else None
    qkv = torch.randn(batch.tokens, 3 * HEADS * DIM, dtype=torch.float64)
    got = attention(qkv, batch.blocks, HEADS, 0.3, dropout)
    torch.testing.assert_close(got, by_hand(qkv, batch, dropout.whole if dropped else None))


def test_groups_pad_little():
    rng = np.random.default_rng(4)
    lengths = np.sort(np.concatenate([rng.integers(5, 60, size=13), [180, 350, 500]]))
    batch = packed(lengths.tolist())
    spent = sum(g.sequences * g.length**2 for g in batch.blocks)
    assert spent < 1.1 * (lengths**2).sum() and len(batch.blocks) < 8
    assert sum(g.sequences for g in batch.blocks) == len(lengths)
    assert batch.blocks.tokens == batch.tokens == lengths.sum()


def test_level_groups_have_few_lengths_and_the_same_sequences():
    lengths = [5, 9, 30, 33, 34, 200, 3]
    exact, level = packed(lengths).blocks, packed(lengths, level=True).blocks
    assert [g.sequences for g in level] == [g.sequences for g in exact]
    assert [g.longest for g in level] == [g.length for g in exact]
    assert [g.length for g in level] == [-(-g.length // 16) * 16 for g in exact]


@pytest.mark.parametrize("recipe", [{}, {"pals.kind": "mixed"}, {"lora.rank": 2}])
def test_filler_changes_nothing(tmp_path, recipe):
    """Outputs, masks and gradients are those of the batch without it."""
    folder = small.folder(tmp_path)
    model = prepare_model(small.config(folder, **recipe), folder / "cache", torch.device("cpu"))
    task, found = get_task("sst"), []
    for fill, level in ((False, False), (True, False), (True, True)):
        batch = packed([5, 9, 30, 3], fill, level)
        assert batch.tokens == 47 and len(batch.token_ids) == (64 if fill else 47)
        model.zero_grad()
        outputs = model(batch, task, dropout=Dropout(3))
        outputs.square().sum().backward()
        found.append((outputs, {n: p.grad for n, p in model.trained().items()}))
    for outputs, gradients in found[1:]:
        torch.testing.assert_close(outputs, found[0][0], atol=1e-6, rtol=1e-5)
        for name, gradient in found[0][1].items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)
    (last,) = {batch.owners[batch.tokens :].unique().item()}
    assert last == len(batch.cls_positions)


@pytest.mark.parametrize("placement", ["original", "alternative"])
@pytest.mark.parametrize("kind", ["none", "mixed", "pals"])
def test_the_last_layer_for_cls_alone_computes_the_same(tmp_path, kind, placement):
    folder = small.folder(tmp_path)
    config = small.config(folder, **{"pals.kind": kind, "pals.placement": placement})
    model = prepare_model(config, folder / "cache", torch.device("cpu"))
    if model.pals is not None:
        for p in model.pals.parameters():
            torch.nn.init.normal_(p, std=0.3)
    for batch in (packed([5, 9, 30, 3]), packed([4, 4])):
        h = model.encoder.embeddings(batch, None)
        wanted = model.encoder.encode(h, batch, model.adapter)[batch.cls_positions]
        got = model.encoder.encode(h, batch, model.adapter, cls_only=True)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
