"""The multi-task model: parameter counts of the paper, LoRA, and what trains.

Room: minbert/adapters, minbert/training.
"""

import pytest
import torch

from minbert import Config, count_parameters
from minbert.adapters.lora import LowRank
from minbert.packing.pack import pack
from minbert.tasks.builtin import TASKS
from minbert.training.build import prepare_model
from minbert.training.trainer import Trainer
from support import small

LLL, FM = "last-linear-layer", "full-model"


@pytest.mark.parametrize(
    ("mode", "rank", "alpha", "trainable"),
    [  # every row of the paper's table 1
        (FM, 0, 1, 109_487_623),
        (LLL, 1, 1, 149_767),
        (LLL, 4, 1, 599_068),
        (LLL, 8, 1, 1_198_136),
        (LLL, 16, 1, 2_396_272),
        (LLL, 1, 8, 149_767),
        (LLL, 4, 8, 599_068),
        (LLL, 8, 8, 1_198_136),
        (LLL, 16, 8, 2_396_272),
        (LLL, 16, 16, 2_396_272),
        (FM, 4, 8, 32_150_812),
    ],
)
def test_trainable_parameters_equal_table_1(mode, rank, alpha, trainable):
    keys = {"backbone": "bert-base-uncased", "train.mode": mode, "lora.rank": rank}
    counts = count_parameters(Config.from_keys(keys | {"lora.alpha": float(alpha)}))
    assert counts.trainable == trainable
    assert counts.total == 109_487_623 + 149_767 * rank


def test_heads_alone_train_in_last_linear_layer_without_lora():
    counts = count_parameters(
        Config.from_keys({"backbone": "bert-base-uncased", "train.mode": LLL})
    )
    assert counts.trainable == 5_383


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("model"))


def config(folder, **keys) -> Config:
    names = {"rank": "lora.rank", "alpha": "lora.alpha", "mode": "train.mode"}
    given = {names.get(name, "train." + name): value for name, value in keys.items()}
    return small.config(folder, **given)


def model_of(folder, **keys):
    return prepare_model(config(folder, **keys), folder / "cache", torch.device("cpu"))


def batch():
    return pack([torch.arange(5, 5 + n).numpy() for n in (3, 9, 5)], [3, 4, 5])


def test_lora_starts_at_the_backbone(folder):
    plain, lora = model_of(folder), model_of(folder, rank=4, alpha=8.0)
    for task in TASKS:
        assert torch.equal(plain(batch(), task), lora(batch(), task))


def scramble(model) -> None:
    stream = torch.Generator().manual_seed(1)
    for name, p in model.lora.named_parameters():
        if name.endswith(".b"):
            torch.nn.init.normal_(p, std=0.3, generator=stream)


def test_merged_lora_computes_the_same(folder):
    model = model_of(folder, rank=3, alpha=2.5)
    scramble(model)
    plain = model_of(folder)
    with torch.inference_mode():
        for task in TASKS:
            apart = model(batch(), task)
            merged = model.merged()(batch(), task)
            torch.testing.assert_close(merged, apart, atol=1e-5, rtol=1e-5)
            assert not torch.allclose(apart, plain(batch(), task), atol=1e-3)


def test_alpha_multiplies_directly(folder):
    pair = LowRank(5, 7, rank=4, alpha=8.0)
    pair.initialise(torch.Generator().manual_seed(0))
    torch.nn.init.normal_(pair.b)
    x = torch.randn(3, 5)
    linear = torch.nn.Linear(5, 7)
    want = linear(x) + 8.0 * x @ (pair.b[0] @ pair.a[0]).T
    torch.testing.assert_close(pair.forward(linear.weight, linear.bias, x), want)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("asked", [False, True])
def test_lora_has_the_gradients_of_its_formula(parts, asked):
    """Against autograd's own chain over dense matrices, and a first layer whose input is fixed."""
    torch.manual_seed(0)
    linear = torch.nn.Linear(6, 9).double().requires_grad_(False)
    pair = LowRank(6, 9, rank=2, alpha=1.7, parts=parts).double()
    torch.nn.init.normal_(pair.a)
    torch.nn.init.normal_(pair.b)
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=asked)
    slope = torch.randn(5, 9, dtype=torch.float64)
    weight = linear.weight + 1.7 * (pair.b @ pair.a).flatten(0, 1)
    torch.testing.assert_close(pair.merged(linear.weight), weight.detach())
    wanted = torch.nn.functional.linear(x, weight, linear.bias)
    got = pair.forward(linear.weight, linear.bias, x)
    torch.testing.assert_close(got, wanted)
    given = [pair.a, pair.b] + [x] * asked
    mine = torch.autograd.grad((got * slope).sum(), given)
    theirs = torch.autograd.grad((wanted * slope).sum(), given)
    torch.testing.assert_close(mine, theirs)


def test_a_is_gaussian_with_deviation_one_over_root_rank():
    pair = LowRank(4000, 10, rank=16, alpha=1.0)
    pair.initialise(torch.Generator().manual_seed(0))
    assert abs(pair.a.std().item() - 0.25) < 0.005
    assert not pair.b.any()


@pytest.mark.parametrize(("mode", "rank"), [(FM, 0), (FM, 4), (LLL, 0), (LLL, 4)])
def test_only_what_should_train_moves(folder, mode, rank):
    trainer = Trainer(config(folder, mode=mode, rank=rank, weight_decay=0.1), folder / "cache")
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for task in ("sst", "para", "sts", "sst"):
        trainer.take_step(task)
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    carries_lora = ("qkv", "intermediate", "output.", "heads.")
    expected = set()
    for name in before:
        is_lora = name.startswith("lora.")
        frozen_linear = rank and (
            name.startswith("heads.")
            or any(f"layers.{i}.{site}" in name for i in (0, 1) for site in carries_lora[:3])
        )
        if is_lora or (mode == FM and not frozen_linear) or (rank == 0 and "heads." in name):
            expected.add(name)
    assert moved == expected


def test_the_seed_alone_decides_heads_and_adapters(folder):
    one, two = (model_of(folder, rank=4, seed=3) for _ in range(2))
    other = model_of(folder, rank=4, seed=4)
    wider = model_of(folder, rank=8, seed=3)
    assert torch.equal(one.heads["sst"].weight, two.heads["sst"].weight)
    assert torch.equal(one.lora.heads["sst"].a, two.lora.heads["sst"].a)
    assert not torch.equal(one.heads["sst"].weight, other.heads["sst"].weight)
    assert torch.equal(one.heads["sst"].weight, wider.heads["sst"].weight)  # streams are apart
