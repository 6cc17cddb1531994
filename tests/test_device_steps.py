"""A GPU's step on a processor: the same function as a processor's own, whatever the batch.

Room: minbert/training.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minbert.adapters import lora
from minbert.multitask import task_loss
from minbert.packing.buckets import Buckets
from minbert.tasks.builtin import TASKS, get_task
from minbert.tasks.rows import Rows, RowTasks, row_divergence, row_loss
from minbert.training.device_step import DeviceSteps
from minbert.training.host_step import HostSteps
from minbert.training.late_values import LateValues
from minbert.training.objective import divergence
from minbert.training.trainer import Trainer
from support import small

CPU = torch.device("cpu")
QUIET = {"train.dropout": 0.0, "train.epochs": 2, "train.lr": 1e-3, "train.device": "cpu"}
RECIPES = [
    {},
    {"train.grad_clip": 0.01, "train.weight_decay": 0.1},
    {"lora.rank": 2, "lora.alpha": 3.0, "train.mode": "last-linear-layer"},
    {"lora.rank": 2, "lora.alpha": 0.5},
    {"pals.kind": "mixed"},
    {"pals.kind": "pals", "pals.tasks": ["sst"], "lora.rank": 1},
    {"smart.lambda": 1.0, "smart.alpha": 0.1, "smart.steps": 2},
    {"smart.proximal": 1.0, "smart.momentum": 0.5},
]
MIX = ("sst", "para", "sts", "sst", "sst", "para")


@pytest.fixture
def folder(tmp_path):
    return small.folder(tmp_path, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def trainer(folder, kind, **keys) -> Trainer:
    """A training whose steps are of a kind, on the processor."""
    made = Trainer(small.config(folder, **QUIET | keys), folder / "cache")
    made.model.encoder.embeddings.word.sparse = False  # as on a GPU; those of a processor set it
    made.steps = kind(made.setup)
    return made


def same_weights(one: Trainer, other: Trainer) -> None:
    """Compare what trains, but for keys' biases: attention does not depend on them, so that their
    gradients are rounding alone, which AdamW takes for a direction."""
    hidden = one.model.encoder.shape.hidden_size
    for name, weight in one.trained.items():
        pair = weight.detach().clone(), other.trained[name].detach().clone()
        for each in pair if name.endswith("qkv.bias") else ():
            each[hidden : 2 * hidden] = 0
        torch.testing.assert_close(*pair, atol=3e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


# ---- shapes


@pytest.mark.parametrize("batch_size", [1, 16, 700])
@pytest.mark.parametrize("longest", [64, 512])
def test_every_batch_has_a_bucket_and_little_filler(batch_size, longest):
    buckets, rng = Buckets(batch_size, longest), np.random.default_rng(0)
    for _ in range(200):
        count = rng.integers(1, batch_size + 1)
        tokens = int(rng.integers(1, longest + 1, size=count).sum())
        bucket = buckets.of(tokens, int(count))
        filler = bucket.filler(tokens, int(count))
        assert tokens + filler.sum() == bucket.tokens
        assert count + len(filler) == bucket.sequences
        assert filler.min() >= 1 and filler.max() <= bucket.longest <= longest
        if count == batch_size and tokens > 256:
            assert bucket.tokens < 1.5 * (tokens + len(filler) + 64)


def test_buckets_are_few():
    buckets = Buckets(16, 512)
    found = {buckets.of(tokens, 16) for tokens in range(16, 16 * 512)}
    assert len(found) < 20
    assert len({bucket.tokens for bucket in found}) == len(found)


# ---- losses by row


def rows_of(tasks: RowTasks, task, labels, filler=0) -> Rows:
    return Rows(*map(torch.from_numpy, tasks.rows(task, labels, filler)))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_row_s_loss_is_its_task_s(task):
    tasks, rng = RowTasks(TASKS), np.random.default_rng(1)
    outputs, others = (torch.randn(7, 7, requires_grad=True) for _ in range(2))
    labels = rng.integers(0, 2, size=5).astype(np.float32)
    rows = rows_of(tasks, task, labels, filler=2)
    start = sum(each.outputs for each in TASKS[: TASKS.index(task)])
    mine, theirs = (each[:5, start : start + task.outputs] for each in (outputs, others))
    pairs = [
        (row_loss(outputs, rows), task_loss(task, mine, torch.from_numpy(labels))),
        (row_divergence(outputs, others, rows), divergence(task, mine, theirs)),
    ]
    for got, wanted in pairs:
        torch.testing.assert_close(got, wanted)
        for given, expected in zip(
            torch.autograd.grad(got, (outputs, others), allow_unused=True),
            torch.autograd.grad(wanted, (outputs, others), allow_unused=True),
            strict=True,
        ):
            assert (given is None) == (expected is None)
            if given is not None:
                torch.testing.assert_close(given, expected)


# ---- steps


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
@pytest.mark.parametrize("as_on_a_gpu", [False, True], ids=["", "thin products as on a GPU"])
def test_steps_are_those_of_a_processor(folder, monkeypatch, recipe, as_on_a_gpu):
    """Losses, and weights after a mix of tasks; a step of one task moves nothing of another's."""
    if as_on_a_gpu:
        if "lora.rank" not in recipe:
            pytest.skip("no thin products")
        monkeypatch.setattr(lora, "_on_processor", lambda t: False)
    host, device = (trainer(folder, kind, **recipe) for kind in (HostSteps, DeviceSteps))
    for task in MIX:
        wanted, got = (each.take_step(task) for each in (host, device))
        # Perturbations are drawn for filler, too, so they are others.
        close = 2e-3 if "smart.lambda" in recipe else 1e-4
        assert got.loss == pytest.approx(wanted.loss, rel=close)
        assert (got.step, got.task, got.tokens) == (wanted.step, wanted.task, wanted.tokens)
    host.steps.catch_up()
    if "smart.lambda" not in recipe:
        same_weights(host, device)
    stepped = device.steps.tensors()
    counted = {task: MIX.count(task) for task in set(MIX)}
    for name in device.trained:
        if (task := device.model.task_of(name)) and f"optimizer/step/{name}" in stepped:
            assert stepped[f"optimizer/step/{name}"].item() == counted[task], name


@pytest.mark.parametrize("recipe", RECIPES[:6], ids=str)
def test_filler_and_shape_change_nothing(folder, recipe):
    """A batch in the smallest bucket that it fits, and in one with much more filler."""
    found = []
    for more in (0, 16):
        training = trainer(folder, DeviceSteps, **recipe)
        of = training.steps._buckets.of
        training.steps._buckets.of = lambda tokens, count, of=of, more=more: replace(
            (bucket := of(tokens, count)), tokens=bucket.tokens + 12 * more,
            sequences=bucket.sequences + more,
        )  # fmt: skip
        found.append((training, [training.take_step(task).loss for task in MIX]))
    (one, losses), (other, same) = found
    assert losses == pytest.approx(same, rel=1e-4)
    same_weights(one, other)


def test_bfloat16_differs_by_its_rounding(folder):
    keys = {"train.precision": "bfloat16"}
    host, device = (trainer(folder, kind, **keys) for kind in (HostSteps, DeviceSteps))
    exact = trainer(folder, HostSteps)
    for task in MIX[:3]:
        wanted, mine, theirs = (each.take_step(task).loss for each in (exact, device, host))
        assert mine == pytest.approx(wanted, rel=0.03) and theirs == pytest.approx(wanted, rel=0.03)
    assert all(p.dtype == torch.float32 for p in device.trained.values())


def test_rank_and_length_of_any_size(folder):
    """Sequences of one token and of as many as there can be."""
    training = trainer(folder, DeviceSteps, **{"train.batch_size": 3})
    longest = training.model.encoder.shape.max_positions
    sst = training.corpus.train["sts"]
    sst.tokens = np.resize(np.asarray(sst.tokens), longest + 2)
    sst.offsets = np.array([0, 1, longest + 1, longest + 2])
    sst.segment_starts, sst.labels = np.array([1, 5, 1]), np.float32([0, 2, 4])
    host = trainer(folder, HostSteps, **{"train.batch_size": 3})
    for each in (training, host):
        each.corpus.train["sts"] = sst
        each.steps.launch("sts", np.arange(3), 1e-3)
    got, wanted = (each.steps.finished(wait=True) for each in (training, host))
    assert got[0].tokens == longest + 2
    assert got[0].loss == pytest.approx(wanted[0].loss, rel=1e-4)


# ---- divergence


@pytest.mark.parametrize("recipe", [{}, {"lora.rank": 2}, {"smart.proximal": 1.0}], ids=str)
def test_a_step_that_is_not_finite_is_left_out_and_all_after_it(folder, recipe):
    training = trainer(folder, DeviceSteps, **recipe)
    for task in ("sst", "para"):
        training.take_step(task)
    before = {name: p.detach().clone() for name, p in training.trained.items()}
    state = {name: t.clone() for name, t in training.steps.tensors().items()}
    sts = training.corpus.train["sts"]
    labels, sts.labels = sts.labels, np.full(len(sts.labels), np.inf, np.float32)
    training.steps.launch("sts", np.arange(4), 1e-3)
    sts.labels = labels
    for task in ("sst", "para", "sts"):  # finite by themselves
        training.steps.launch(task, np.arange(4), 1e-3)
    first, *others = training.steps.finished(wait=True)
    assert not math.isfinite(first.loss) and all(math.isfinite(each.loss) for each in others)
    for name, weight in before.items():
        assert torch.equal(training.trained[name], weight), name
    for name, value in training.steps.tensors().items():
        assert torch.equal(value, state.get(name, torch.zeros_like(value))), name


def test_a_gradient_that_is_not_finite_is_a_step_that_is_not(folder):
    training = trainer(folder, DeviceSteps, **{"train.grad_clip": 1.0})
    training.take_step("sst")
    before = {name: p.detach().clone() for name, p in training.trained.items()}
    word = training.trained["encoder.embeddings.word.weight"]
    hook = word.register_hook(lambda grad: grad * math.inf)
    training.steps.launch("sst", np.arange(4), 1e-3)
    hook.remove()
    (result,) = training.steps.finished(wait=True)
    assert math.isnan(result.loss)
    assert all(torch.equal(training.trained[name], p) for name, p in before.items())


# ---- what comes late


def test_losses_come_in_order_and_at_once_where_nothing_is_late():
    values, number = LateValues(CPU), torch.zeros(())
    for i in range(11):
        number.fill_(i)
        values.add(number)
    number.fill_(-1)
    assert values.take(wait=False) == list(range(11))
    assert values.take(wait=True) == []


# ---- a checkpoint goes from one kind of device to the other


@pytest.mark.parametrize("recipe", [{}, {"lora.rank": 2}, {"smart.proximal": 1.0}], ids=str)
@pytest.mark.parametrize("way", [(HostSteps, DeviceSteps), (DeviceSteps, HostSteps)])
def test_a_checkpoint_goes_on_on_the_other_kind(folder, recipe, way):
    """Moments, rows that lag behind, numbers of steps: the steps that follow are the same."""
    whole = trainer(folder, HostSteps, **recipe)
    before, after = (trainer(folder, kind, **recipe) for kind in way)
    for task in MIX:
        whole.take_step(task)
        before.take_step(task)
    tensors, numbers = before.tensors(), before.numbers()
    after.load({name: t.detach().clone() for name, t in tensors.items()}, numbers)
    for task in ("sts", "sst", "para", "para"):
        assert after.take_step(task).loss == pytest.approx(whole.take_step(task).loss, rel=1e-4)
    for each in (whole, after):
        each.steps.catch_up()
    same_weights(whole, after)


def test_the_kinds_of_a_task_are_told_by_its_rows():
    tasks = RowTasks(TASKS)
    for task in (get_task("sst"), get_task("para"), get_task("sts")):
        rows = rows_of(tasks, task, np.float32([1, 0]), filler=1)
        assert (rows.class_weights + rows.value_weights).tolist() == [0.5, 0.5, 0]
        assert rows.columns.shape == (3, tasks.choices)
