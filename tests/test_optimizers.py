"""Our AdamW, dense and by row, against torch's.

Room: minbert/training.
"""

import numpy as np
import pytest
import torch
from torch import nn

from minbert.training.optimizers import AdamW, RowAdamW, clip
from minbert.training.trainer import Trainer
from support import small

ROWS, WIDTH, LR = 300, 8, 1e-3


def rates(warmup):
    return lambda steps: LR * np.minimum(1.0, steps / (warmup or 1e-9))


def batches(steps):
    """Ids as text has them, some often and most seldom; now and then every one."""
    rng = np.random.default_rng(1)
    for step in range(1, steps + 1):
        every = step % 130 == 0
        seldom = (rng.random(20) ** 3 * ROWS).astype(int)
        yield torch.from_numpy(np.arange(ROWS) if every else seldom)


@pytest.mark.parametrize("warmup", [0, 40])
@pytest.mark.parametrize("size", [1e-2, 1e-6])  # the second is felt by AdamW's eps
def test_it_moves_every_row_as_dense_adamw_does(warmup, size):
    torch.manual_seed(0)
    start = 0.05 * torch.randn(ROWS, WIDTH)
    wanted = nn.Parameter(start.double())
    dense = torch.optim.AdamW([wanted], lr=LR, weight_decay=0.0)
    embedding = nn.Embedding(ROWS, WIDTH, sparse=True, _weight=start.clone())
    by_row = RowAdamW(embedding.weight, rates(warmup))
    for step, ids in enumerate(batches(420), start=1):
        by_row.catch_up(ids.unique())
        slope = size * torch.randn(len(ids), WIDTH)
        read = embedding(ids)
        torch.testing.assert_close(read.double(), wanted[ids], atol=2e-6, rtol=0)
        (read * slope).sum().backward()
        wanted.grad = torch.zeros_like(wanted).index_add_(0, ids, slope.double())
        dense.param_groups[0]["lr"] = float(rates(warmup)(np.array([step]))[0])
        dense.step()
        by_row.take_step()
    by_row.catch_up()
    assert (wanted - start).abs().max() > 0.01
    torch.testing.assert_close(embedding.weight.double(), wanted.detach(), atol=2e-6, rtol=0)
    after = embedding.weight.detach().clone()
    by_row.catch_up()
    assert torch.equal(embedding.weight, after)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_the_dense_one_is_torch_s_to_the_last_bit(decay):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(9, 4)), nn.Parameter(torch.randn(5))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    pairs = [
        (kind(parameters, lr=LR, weight_decay=decay, fused=True), parameters)
        for kind, parameters in ((AdamW, ours), (torch.optim.AdamW, theirs))
    ]
    for step in range(5):
        slopes = [torch.randn(9, 4), None if step < 2 else torch.randn(5)]  # the second is late
        for optimizer, parameters in pairs:
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.grad = None if slope is None else slope.clone()
            optimizer.step()
            optimizer.zero_grad()
        assert all(map(torch.equal, ours, theirs))


def test_clipping_sees_sparse_and_dense_gradients():
    embedding, linear = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2)
    twin = nn.Embedding(9, 4, _weight=embedding.weight.detach().clone())
    ids = torch.tensor([1, 5, 1, 8])
    (linear(embedding(ids)) ** 2).sum().backward()
    sparse = [embedding.weight, *linear.parameters()]
    before = [p.grad.clone() for p in linear.parameters()]
    linear.zero_grad()
    (linear(twin(ids)) ** 2).sum().backward()
    for p, gradient in zip(linear.parameters(), before, strict=True):
        torch.testing.assert_close(p.grad, gradient)
    clip(sparse, 0.1)
    by_hand = [p.grad.to_dense() for p in sparse]
    assert torch.stack([g.norm() for g in by_hand]).norm().item() == pytest.approx(0.1, rel=1e-4)
    torch.testing.assert_close(
        by_hand[0] / by_hand[0].norm(), twin.weight.grad / twin.weight.grad.norm()
    )


@pytest.mark.parametrize(
    ("keys", "by_row"),
    [({}, True), ({"train.weight_decay": 0.1}, False), ({"smart.proximal": 0.1}, False),
     ({"lora.rank": 2, "train.mode": "last-linear-layer"}, False), ({"lora.rank": 2}, True)],
)  # fmt: skip
def test_a_training_takes_it_where_it_is_exact(tmp_path, keys, by_row):
    folder = small.folder(tmp_path)
    trainer = Trainer(small.config(folder, **keys), folder / "cache")
    assert (trainer.steps.rows is not None) == by_row


def test_a_training_by_row_and_a_dense_one_stay_together(tmp_path):
    folder = small.folder(tmp_path)
    keys = {"train.lr": 1e-3, "train.epochs": 9}
    one = Trainer(small.config(folder, **keys), folder / "cache")
    keys["train.weight_decay"] = 1e-30  # too small to be felt, and by row it cannot be done
    other = Trainer(small.config(folder, **keys), folder / "cache")
    assert one.steps.rows is not None and other.steps.rows is None
    for task in 12 * ("sst", "para", "sts"):
        assert one.take_step(task).loss == pytest.approx(other.take_step(task).loss, rel=1e-4)
    one.evaluate()
    for name, p in one.trained.items():
        if name.endswith("qkv.bias"):
            continue  # the gradient of a key's bias is zero: AdamW scales up what rounding leaves
        torch.testing.assert_close(p, other.trained[name], atol=2e-5, rtol=0)
