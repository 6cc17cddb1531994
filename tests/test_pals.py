"""Parallel adaptation layers: the paper's counts, and what TS(h) computes where it joins.

Room: minbert/adapters.
"""

import math

import pytest
import torch
import torch.nn.functional as F

from minbert import Config, InputError, count_parameters
from minbert.adapters.pals import PAL, PAL_HEADS, Pals
from minbert.model.encoder import Encoder, EncoderShape
from minbert.packing.pack import pack
from minbert.tasks.builtin import get_task
from minbert.training.build import prepare_model
from minbert.training.trainer import Trainer
from support import small
from support.small import config

SHAPE = EncoderShape(50, 24, 4, 3, 48, max_positions=40)


@pytest.mark.parametrize(
    ("keys", "trainable"),
    [  # table 2, but for mixed, which is the architecture of the text
        ({"pals.kind": "low-rank"}, 115_048_471),
        ({"pals.kind": "pals"}, 125_319_559),
        ({"pals.kind": "shared"}, 114_947_131),
        ({"pals.kind": "shared-attention"}, 110_806_951),
        ({"pals.kind": "shared", "pals.tasks": ["sst"]}, 111_307_459),
        ({"pals.kind": "mixed"}, 115_469_275),
        ({"pals.kind": "shared", "lora.rank": 4}, 32_150_812 + 114_947_131 - 109_487_623),
    ],
)
@pytest.mark.parametrize("placement", ["original", "alternative"])
def test_trainable_parameters_equal_table_2(keys, trainable, placement):
    keys = {"backbone": "bert-base-uncased", "pals.placement": placement} | keys
    assert count_parameters(Config.from_keys(keys)).trainable == trainable


def test_tasks_are_checked():
    for wrong in ([], ["sts", "cola"], "sst"):
        with pytest.raises(InputError, match=r"pals\.tasks"):
            Config.from_keys({"pals.tasks": wrong})
    assert Config.from_keys({"pals.tasks": ["sts", "sst"]}).pals.tasks == ("sst", "sts")


def layers(kind, placement="original", tasks=("sst", "para", "sts")) -> Pals:
    """Adaptation layers with every weight drawn, so that none of them is silent."""
    pals = Pals(SHAPE, kind, placement, tasks)
    stream = torch.Generator().manual_seed(4)
    for p in pals.parameters():
        torch.nn.init.normal_(p, std=0.2, generator=stream)
    return pals


def encoder() -> Encoder:
    torch.manual_seed(2)
    made = Encoder(SHAPE)
    for layer in made.layers:
        torch.nn.init.normal_(layer.qkv.weight, std=0.3)
    return made


def batch(*tasks):
    sequences = [torch.arange(5, 5 + n).numpy() for n in (6, 3, 6, 9)[: len(tasks)]]
    return pack(sequences, [len(s) for s in sequences], tasks)


def by_hand(pals, layer, task, h):
    """TS(h) of one sequence [L, H], spelt out from the paper's text (section 4.3)."""
    own = pals.tasks[task]
    name, heads = own._plan[layer]
    down, up = own.projections[name].encoder, own.projections[name].decoder
    small_h = h @ down.weight.T + down.bias
    if heads is None:
        return F.gelu(small_h) @ up.weight.T + up.bias
    qkv = small_h @ own.attentions[heads].weight.T + own.attentions[heads].bias
    q, k, v = qkv.split(PAL, dim=1)
    dim = PAL // PAL_HEADS
    out = []
    for head in range(PAL_HEADS):
        at = slice(head * dim, (head + 1) * dim)
        out.append((q[:, at] @ k[:, at].T / math.sqrt(dim)).softmax(1) @ v[:, at])
    return F.gelu(torch.cat(out, 1) @ up.weight.T + up.bias)


@pytest.mark.parametrize("kind", ["low-rank", "pals", "shared", "shared-attention", "mixed"])
@pytest.mark.parametrize("placement", ["original", "alternative"])
def test_a_layer_computes_the_paper_s_equations(kind, placement):
    pals, model = layers(kind, placement), encoder()
    packed = batch("para", "para", "para")
    h = torch.randn(packed.tokens, SHAPE.hidden_size)
    for index in (0, 3):
        layer = model.layers[index]
        got = layer(h, packed, pals, None)
        bounds = [*packed.cls_positions.tolist(), packed.tokens]
        for start, stop in zip(bounds, bounds[1:], strict=False):
            x = h[start:stop]
            alone = pack([torch.arange(stop - start).numpy()], [stop - start])
            ts = by_hand(pals, index, "para", x)
            wanted = joined(layer, x, alone, ts, placement)
            torch.testing.assert_close(got[start:stop], wanted, atol=1e-5, rtol=1e-5)


def joined(layer, x, alone, ts, placement):
    """BL(h) with TS(h) where the placement says (equations 3 to 7)."""
    from minbert.model.attention import attention

    context = attention(layer.qkv(x), alone.blocks, layer.num_heads, 0.0, None)
    if placement == "alternative":
        context = context + ts
    a = layer.attention_norm(x + layer.attention_output(context))
    f = layer.output(F.gelu(layer.intermediate(a)))
    return layer.output_norm(a + f + (ts if placement == "original" else 0))


def test_a_batch_of_several_tasks_equals_batches_of_one():
    pals, model = layers("mixed", tasks=("sst", "sts")), encoder()
    together = batch("sts", "sst", "para", "sts")
    hidden = model(together, pals)
    pooled = torch.empty(4, SHAPE.hidden_size)
    pooled[torch.from_numpy(together.order)] = model.pool(hidden, together)
    for index, (length, task) in enumerate(
        zip((6, 3, 6, 9), ("sts", "sst", "para", "sts"), strict=True)
    ):
        alone = pack([torch.arange(5, 5 + length).numpy()], [length], [task])
        wanted = model.pool(model(alone, pals), alone)[0]
        torch.testing.assert_close(pooled[index], wanted, atol=1e-5, rtol=1e-5)


def test_sharing_is_across_layers_and_not_across_tasks():
    shared = layers("shared")
    assert list(shared.tasks["sst"].projections) == ["shared"]
    assert len(shared.tasks["sst"].attentions) == SHAPE.layers
    names = {id(p) for t in shared.tasks.values() for p in t.parameters()}
    assert len(names) == sum(1 for _ in shared.parameters())
    mixed = layers("mixed").tasks["sts"]
    assert [heads for _, heads in mixed._plan] == ["layer0", "layer1", None, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("pals"))


def test_training_starts_at_the_backbone_and_each_task_moves_its_own(folder):
    wanted = config(folder, **{"pals.kind": "shared"})
    plain = prepare_model(config(folder), folder / "cache", torch.device("cpu"))
    trainer = Trainer(wanted, folder / "cache")
    packed = batch("sst", "sst")
    sst = get_task("sst")
    torch.testing.assert_close(trainer.model(packed, sst), plain(packed, sst))
    before = {n: p.detach().clone() for n, p in trainer.model.pals.named_parameters()}
    for _ in range(3):
        trainer.take_step("para")
    moved = {n for n, p in trainer.model.pals.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {name for name in before if name.startswith("tasks.para.")}


def test_they_combine_with_lora(folder):
    wanted = config(
        folder, **{"pals.kind": "low-rank", "lora.rank": 2, "train.mode": "last-linear-layer"}
    )
    trainer = Trainer(wanted, folder / "cache")
    assert all(n.startswith(("lora.", "pals.")) for n in trainer.trained)
    before = {n: p.detach().clone() for n, p in trainer.trained.items()}
    for task in ("sst", "para", "sts", "sst", "para", "sts"):
        trainer.take_step(task)
    assert all(not torch.equal(p, before[n]) for n, p in trainer.trained.items())
    packed = batch("sts", "sts")
    model, sts = trainer.model, get_task("sts")
    merged = model.merged()(packed, sts)
    torch.testing.assert_close(model(packed, sts), merged, atol=1e-5, rtol=1e-5)
