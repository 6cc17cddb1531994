"""What matters, on both kinds of devices: on a GPU, where there is one, and on the processor.

Room: minbert/training, minbert/model.
"""

import json
import math

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import BertModel

from minbert import DivergedError, TrainingStopped, load_model, save_model, train
from minbert.backbone.weights import load_encoder_state, read_shape
from minbert.data.datasets import load_corpus
from minbert.evaluation.evaluate import predict_dataset
from minbert.model import varlen_attention as kernels
from minbert.model.attention import attention
from minbert.model.device_dropout import make_dropout
from minbert.model.encoder import Encoder
from minbert.packing.pack import pack
from minbert.packing.ragged import to_device
from minbert.tasks.builtin import get_task
from minbert.training.host_step import HostSteps
from minbert.training.objective import TaskObjective
from minbert.training.trainer import Trainer
from support import small

LENGTHS = [7, 1, 512, 23, 7, 64, 23]  # ragged; with one token, and with as many as there can be
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 512}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
RECIPES = {
    "full": {"train.grad_clip": 1.0},
    "LoRA": {"lora.rank": 3, "lora.alpha": 2.0, "train.mode": "last-linear-layer"},
    "full with LoRA": {"lora.rank": 2},
    "PALs": {"pals.kind": "mixed", "lora.rank": 1},
    "noise": {"smart.lambda": 1.0, "smart.mode": "noise"},
    "adversarial": {"smart.lambda": 0.1, "smart.alpha": 1e-3, "smart.norm": "l2"},
    "teacher": {"smart.proximal": 1.0},
}
MIX = 4 * ("sst", "para", "sts", "sst")  # often enough for every shape to become a graph
EXACT = {"train.precision": "float32"}
HALF = {"train.precision": "bfloat16"}


@pytest.fixture
def folder(tmp_path):
    return small.folder(tmp_path, **SHAPE | STILL)


def trainer(folder, device, graphs=True, **keys) -> Trainer:
    keys = {"train.device": str(device), "train.dropout": 0.0, "train.lr": 1e-3} | keys
    return Trainer(small.config(folder, **keys), folder / "cache", graphs)


def losses(training: Trainer, tasks=MIX) -> list[float]:
    found = []
    training.on_step = lambda step: found.append(step.loss)
    for task in tasks:
        training.launch(task)
    training.settle()
    return found


# ---- the kernels' interface, which is torch's own business


def test_the_kernels_are_what_we_take_them_for():
    """Whatever torch this is: names and order of arguments. Else attention pads, and says so."""
    for name, wanted in (
        ("_flash_attention_forward", kernels._FLASH),
        ("_efficient_attention_forward", kernels._EFFICIENT),
    ):
        assert kernels._is_known(name, wanted)
        assert not kernels._is_known(name, wanted[1:])
    assert not kernels._is_known("_no_such_attention", kernels._FLASH)


def test_a_gpu_pads_nothing(gpu):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        kernel = kernels.pick(gpu, dtype, 64)
        new = torch.cuda.get_device_capability(gpu) >= (8, 0)
        wanted = kernels._flash if dtype != torch.float32 and new else kernels._efficient
        assert kernel is (kernels._padded if dtype == torch.bfloat16 and not new else wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", [8, 34, 64])
@pytest.mark.parametrize("cls_only", [False, True])
def test_attention_of_any_length(device, dtype, width, cls_only):
    """Against blocks in float64 on a processor; lengths at most, too, as a graph has them."""
    torch.manual_seed(0)
    sequences, starts = [np.full(n, 5) for n in LENGTHS], LENGTHS
    exact = torch.randn(sum(LENGTHS), 3 * 2 * width, dtype=torch.float64, requires_grad=True)
    plain = pack(sequences, starts, ["sst"] * len(LENGTHS))
    wanted = attention(exact, plain.blocks, 2)
    wanted = wanted[plain.cls_positions] if cls_only else wanted
    slope = torch.randn_like(wanted)
    (steep,) = torch.autograd.grad((wanted * slope).sum(), exact)
    batch = pack(sequences, starts, ["sst"] * len(LENGTHS), ragged=True)
    batch = batch if device.type == "cpu" else to_device(batch, device)
    given = exact.detach().to(device, dtype).requires_grad_()
    on = batch.cls_positions if cls_only else None
    got = attention(given, batch.blocks._replace(longest=600), 2, cls_positions=on)
    (mine,) = torch.autograd.grad((got * slope.to(device, dtype)).sum(), given)
    close = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.06, "rtol": 0.05}
    torch.testing.assert_close(got.double().cpu(), wanted, **close)
    torch.testing.assert_close(mine.double().cpu(), steep, **close)


def test_attention_drops_its_weights(device):
    """With values of one, an output is the share of weights that were kept, scaled up."""
    batch = pack([np.full(512, 5)], [512], ["sst"], ragged=True)
    batch = batch if device.type == "cpu" else to_device(batch, device)
    for dtype in (torch.float32, torch.bfloat16):
        qkv = torch.zeros(512, 3 * 2 * 8, device=device, dtype=dtype)
        qkv[:, 2 * 2 * 8 :] = 1
        out = attention(qkv, batch.blocks, 2, 0.25, make_dropout(1, device) or None)
        assert abs(out.float().mean().item() - 1) < 0.02 and 0.01 < out.float().std().item() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("longest", [64, 600])
def test_both_ways_drop_the_same_weights(device, dtype, longest):
    """For fixed weights an output is linear in the values: their gradient tells which were used."""
    lengths = [n for n in LENGTHS if n <= longest]
    sequences = [np.full(n, 5) for n in lengths]
    batch = pack(sequences, lengths, ["sst"] * len(lengths), ragged=True)
    batch = batch if device.type == "cpu" else to_device(batch, device)
    torch.manual_seed(3)
    qkv = torch.randn(sum(lengths), 3 * 4 * 32, device=device, dtype=dtype, requires_grad=True)
    blocks = batch.blocks._replace(longest=min(longest, sum(lengths)))
    out = attention(qkv, blocks, 4, 0.3, make_dropout(1, device))
    slope = torch.randn_like(out)
    (grad,) = torch.autograd.grad((out * slope).sum(), qkv)
    values, back = (t.detach().double()[:, 2 * 4 * 32 :] for t in (qkv, grad))
    forth = (out.detach().double() * slope.double()).sum()
    scale = (out.detach().double() * slope.double()).norm()
    assert abs((values * back).sum() - forth) < (1e-4 if dtype == torch.float32 else 0.1) * scale


# ---- the model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_encoder_is_transformers(folder, device, dtype):
    oracle = BertModel.from_pretrained(folder / "backbone").eval().to(device)
    ours = Encoder(read_shape(folder / "backbone"))
    ours.load_state_dict(load_encoder_state(folder / "backbone"))
    ours.to(device)
    for layer in ours.linears():
        layer.to(dtype)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 20, size=n) for n in LENGTHS]
    batch = pack(sequences, LENGTHS, ["sst"] * len(LENGTHS), ragged=device.type != "cpu")
    batch = to_device(batch, device)
    with torch.inference_mode():
        hidden = ours(batch)
        for place, given in enumerate(batch.order):
            ids = torch.from_numpy(sequences[given])[None].to(device)
            wanted = oracle(input_ids=ids).last_hidden_state[0]
            start = int(batch.cls_positions[place])
            close = 1e-4 if dtype == torch.float32 else 0.1
            mine = hidden[start : start + len(wanted)]
            torch.testing.assert_close(mine, wanted, atol=close, rtol=0)


# ---- steps


@pytest.mark.parametrize("precision", [EXACT, HALF], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_steps_are_those_of_a_processor(folder, device, recipe, precision):
    if "smart" in str(recipe) and precision == HALF:
        pytest.skip("SMART is always in float32")
    wanted = trainer(folder, "cpu", **EXACT | recipe)
    assert isinstance(wanted.steps, HostSteps)
    mine = trainer(folder, device, **recipe | precision)
    rough = precision == HALF or "smart.lambda" in recipe  # perturbations are other numbers there
    got = losses(mine)
    np.testing.assert_allclose(got, losses(wanted), rtol=0.05 if rough else 2e-3)
    assert all(p.dtype == torch.float32 for p in mine.trained.values())


@pytest.mark.parametrize("precision", [EXACT, HALF], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_graph_is_the_step_that_it_was_captured_from(tmp_path, gpu, recipe, precision):
    """With dropout: the random streams go on in graphs as they do without."""
    if "smart" in str(recipe) and precision == HALF:
        pytest.skip("SMART is always in float32")
    folder = small.folder(tmp_path, **SHAPE)
    one, other = (
        trainer(folder, gpu, graphs, **{"train.dropout": 0.3} | recipe | precision)
        for graphs in (True, False)
    )
    found = []
    for each in (one, other):
        each.dropout.begin(1)
        found.append(losses(each))
    assert one.steps.graphs.captured > 0 == other.steps.graphs.captured
    assert one.steps.notices() == []
    np.testing.assert_allclose(*found, rtol=0.02 if precision == HALF else 2e-3)


def test_passes_of_smart_see_one_mask(tmp_path, device):
    """Without a perturbation they are equal, dropout and all; from step to step masks change."""
    folder = small.folder(tmp_path, **SHAPE)
    training = trainer(folder, device, **{"smart.lambda": 1e6, "smart.mode": "noise"})
    training.smart.perturbation = lambda embedded, *_: torch.zeros_like(embedded)
    plain = trainer(folder, device)
    found = losses(training, 6 * ["sts"])
    assert max(found) < 100 * max(losses(plain, 6 * ["sts"]))
    assert len(set(found)) == 6


def test_a_batch_of_one_token_and_one_of_all(folder, device):
    keys = EXACT | {"train.batch_size": 3}
    pair = [trainer(folder, each, **keys) for each in (device, "cpu")]
    for each in pair:
        sts = each.corpus.train["sts"]
        sts.tokens = np.resize(np.asarray(sts.tokens), 514)
        sts.offsets = np.array([0, 1, 513, 514])
        sts.segment_starts, sts.labels = np.array([1, 5, 1]), np.float32([0, 2, 4])
        for _ in range(3):
            each.steps.launch("sts", np.arange(3), 1e-3)
    got, wanted = ([r.loss for r in each.steps.finished(wait=True)] for each in pair)
    np.testing.assert_allclose(got, wanted, rtol=1e-3)


def test_memory_does_not_grow(folder, gpu):
    training = trainer(folder, gpu)
    losses(training, 4 * MIX)
    before = torch.cuda.memory_allocated(gpu)
    losses(training, 4 * MIX)
    assert torch.cuda.memory_allocated(gpu) <= before + 2**16


# ---- the promises


@pytest.mark.parametrize("recipe", ["full", "LoRA", "teacher"])
def test_a_stopped_training_goes_on_where_it_was(tmp_path, device, recipe):
    """Dropout goes on, too: on a GPU all but for the order of sums, on a processor to the bit."""
    folder = small.folder(tmp_path, **SHAPE)
    keys = {"train.device": str(device), "train.epochs": 2, "train.steps_per_epoch": 12}
    config = small.config(folder, **keys, **{"train.lr": 1e-4} | RECIPES[recipe])

    def run(checkpoints, stop_at=None):
        steps = []
        try:
            for _ in train(
                config, cache_dir=folder / "cache", checkpoint_dir=checkpoints,
                on_step=steps.append,
                should_stop=lambda: stop_at is not None and len(steps) >= stop_at,
            ):  # fmt: skip
                pass
        except TrainingStopped:
            assert stop_at is not None
        return steps

    whole = run(tmp_path / "whole")
    parts = run(tmp_path / "parts", 7)
    assert 7 <= len(parts) < 24
    parts += run(tmp_path / "parts")
    assert [step.step for step in parts] == list(range(1, 25))
    close = 0 if device.type == "cpu" else 1e-2
    np.testing.assert_allclose([s.loss for s in parts], [s.loss for s in whole], rtol=close)


def test_divergence_is_named_and_leaves_the_weights(folder, device):
    training = trainer(folder, device, **{"train.lr": 1e30})
    with pytest.raises(DivergedError, match=r"step \d+ \(task sst\)") as caught:
        losses(training, 30 * ["sst"])
    assert 1 < caught.value.step <= training.step <= caught.value.step + 16
    assert all(torch.isfinite(p).all() for p in training.trained.values())
    assert not math.isfinite(caught.value.loss)


def test_an_exported_adapter_is_peft_s(tmp_path, device):
    folder = small.folder(tmp_path, **SHAPE)
    keys = {"train.device": str(device), "train.epochs": 1, "train.steps_per_epoch": 8}
    config = small.config(folder, **keys | RECIPES["LoRA"])
    list(train(config, cache_dir=folder / "cache", checkpoint_dir=tmp_path / "checkpoints"))
    save_model(config, tmp_path / "checkpoints", tmp_path / "model", folder / "cache")
    settings = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert settings["lora_alpha"] == 3 * 2.0
    oracle = BertModel.from_pretrained(folder / "backbone").eval()
    oracle = PeftModel.from_pretrained(oracle, tmp_path / "model").eval()
    _, model = load_model(tmp_path / "model", folder / "cache")
    dataset = load_corpus(config.data.path, config.backbone, folder / "cache").dev["para"]
    mine = predict_dataset(model.to(device), dataset, device, torch.float32)
    head = model.merged()._weights["heads.para.weight"], model.head("para").bias
    with torch.inference_mode():
        for index in range(5):
            batch, _ = dataset.batch(np.array([index]))
            pooled = oracle(input_ids=batch.token_ids[None], token_type_ids=batch.segments[None])
            wanted = torch.nn.functional.linear(pooled.pooler_output, *(t.cpu() for t in head))
            torch.testing.assert_close(mine[index], wanted[0], atol=1e-4, rtol=1e-3)


def test_the_objective_of_a_batch_is_on_its_device(folder, device):
    """An evaluation's outputs are the training's, without dropout."""
    training = trainer(folder, device, **EXACT)
    dataset = training.corpus.train["sst"]
    batch, labels = dataset.batch(np.arange(4), ragged=device.type != "cpu")
    batch = to_device(batch, device)
    task, wanted = get_task("sst"), torch.from_numpy(labels).to(device)
    objective = TaskObjective(training.model, batch, task, wanted)
    outputs = objective.outputs(training.model.encoder.embeddings(batch, None), None)
    alone = predict_dataset(training.model, dataset, device, torch.float32)[batch.order]
    torch.testing.assert_close(outputs.detach().cpu(), alone, atol=1e-4, rtol=1e-4)
    assert math.isfinite(objective.loss(outputs).item())
