"""Our encoder against transformers' BertModel on the same weights.

Room: minbert/model.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from minbert import InputError
from minbert.backbone.weights import load_encoder_state, read_shape, to_hf
from minbert.model.dropout import Dropout
from minbert.model.dropout_mask import DropoutMask, add_masked, masked
from minbert.model.encoder import SHAPES, Encoder
from minbert.packing.pack import length_ordered, pack

LENGTHS = [7, 1, 512, 23, 7, 64, 23]  # ragged; with one token, and with as many as there can be


def our_encoder(folder: Path) -> Encoder:
    encoder = Encoder(read_shape(folder))
    encoder.load_state_dict(load_encoder_state(folder))
    return encoder


def ragged(vocabulary: int) -> tuple[list[np.ndarray], list[int]]:
    rng = np.random.default_rng(5)
    sequences = [rng.integers(5, vocabulary, size=n) for n in LENGTHS]
    return sequences, [max(1, n // 2) for n in LENGTHS]


@torch.inference_mode()
def assert_equal_to_transformers(folder: Path) -> None:
    oracle = BertModel.from_pretrained(folder).eval()
    ours = our_encoder(folder)
    sequences, segment_starts = ragged(oracle.config.vocab_size)
    batch = pack(sequences, segment_starts)
    hidden = ours(batch)
    pooled = ours.pool(hidden, batch)
    for place, given in enumerate(batch.order):
        ids = torch.from_numpy(sequences[given])[None]
        types = (torch.arange(ids.shape[1]) >= segment_starts[given]).long()[None]
        wanted = oracle(input_ids=ids, token_type_ids=types)
        start = batch.cls_positions[place]
        mine = hidden[start : start + ids.shape[1]]
        torch.testing.assert_close(mine, wanted.last_hidden_state[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(pooled[place], wanted.pooler_output[0], atol=1e-5, rtol=0)


def test_equals_transformers_on_random_bert_base(tmp_path):
    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(tmp_path)
    assert read_shape(tmp_path) == SHAPES["bert-base-uncased"]
    assert_equal_to_transformers(tmp_path)


def test_equals_transformers_on_real_weights(real_backbone):
    assert read_shape(Path(real_backbone)) == SHAPES["all-MiniLM-L6-v2"]
    assert_equal_to_transformers(Path(real_backbone))


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A random BERT of two layers, as transformers writes it."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=40,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_gradients_equal_transformers(tiny):
    oracle, ours = BertModel.from_pretrained(tiny).eval(), our_encoder(tiny)
    rng = np.random.default_rng(0)
    sequences = [rng.integers(5, 50, size=n) for n in (9, 4, 9, 17)]
    batch = pack(sequences, [3, 2, 9, 8])
    ours.pool(ours(batch), batch).square().sum().backward()
    for sequence, second in zip(sequences, [3, 2, 9, 8], strict=True):
        types = (torch.arange(len(sequence)) >= second).long()[None]
        out = oracle(input_ids=torch.from_numpy(sequence)[None], token_type_ids=types)
        out.pooler_output.square().sum().backward()
    wanted = {name: p.grad for name, p in oracle.named_parameters()}
    mine = to_hf({name: p.grad for name, p in ours.named_parameters()})
    assert mine.keys() == wanted.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, wanted[name], atol=1e-5, rtol=1e-4)


def test_the_order_and_company_of_sequences_change_nothing(tiny):
    encoder = our_encoder(tiny)
    sequences = [np.arange(5, 5 + n) for n in (3, 11, 3, 1)]
    with torch.inference_mode():
        together = pack(sequences, [3, 11, 3, 1])
        pooled = encoder.pool(encoder(together), together)
        for place, given in enumerate(together.order):
            alone = pack([sequences[given]], [len(sequences[given])])
            wanted = encoder.pool(encoder(alone), alone)[0]
            torch.testing.assert_close(pooled[place], wanted, atol=1e-6, rtol=1e-5)


def test_a_packed_batch_holds_no_padding():
    batch = pack([np.array([1, 2, 3]), np.array([4]), np.array([5, 6, 7])], [2, 1, 3])
    assert batch.token_ids.tolist() == [4, 1, 2, 3, 5, 6, 7]
    assert batch.positions.tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert batch.segments.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert batch.cls_positions.tolist() == [0, 1, 4]
    (block,) = batch.blocks  # but in attention
    assert block[:3] == (3, 3, 3) and batch.blocks.tokens == 7 and batch.blocks.padded
    assert block.real.tolist() == [[True, False, False], [True] * 3, [True] * 3]
    assert batch.blocks.source.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6]
    assert batch.blocks.places.tolist() == [0, 3, 4, 5, 6, 7, 8]


def test_length_order_holds_every_sequence_once_within_the_budget():
    lengths = np.random.default_rng(3).integers(1, 200, size=500)
    batches = list(length_ordered(lengths, 1000))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert all(lengths[b].sum() <= 1000 for b in batches)
    assert len(batches) <= lengths.sum() / (1000 - 200) + 1


def test_dropout_keeps_the_mean_and_the_rate():
    x = torch.ones(1000, 257)
    out = Dropout(3).apply(x, 0.3)
    kept = out != 0
    assert abs(kept.float().mean().item() - 0.7) < 0.003
    assert torch.allclose(out[kept], torch.tensor(1 / 0.7), rtol=1e-4)
    assert abs(out.mean().item() - 1) < 0.004
    first, second = (Dropout(3) for _ in range(2))
    assert torch.equal(first.apply(x, 0.1), second.apply(x, 0.1))
    state = first.state()
    again = first.apply(x, 0.1)
    second.load_state(state)
    assert torch.equal(second.apply(x, 0.1), again)


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_every_element_is_dropped_alike_and_alone(count):
    """Of many small tensors: the first and the last as often as others, neighbours independent."""
    dropout, rate, draws = Dropout(5), 0.25, 4000
    ones = torch.ones(count)
    kept = torch.stack([dropout.apply(ones, rate) != 0 for _ in range(draws)]).double()
    deviation = (rate * (1 - rate) / draws) ** 0.5
    assert (kept.mean(0) - (1 - rate)).abs().max() < 4.5 * deviation
    if count > 1:
        together = (kept[:, 1:] * kept[:, :-1]).mean(0)
        assert (together - (1 - rate) ** 2).abs().max() < 4.5 * 0.5 / draws**0.5


@pytest.mark.parametrize(("rate", "least", "most"), [(1e-300, 1.0, 1.0), (0.999, 0.0, 0.003)])
def test_extreme_rates(rate, least, most):
    kept = (Dropout(2).apply(torch.ones(300, 400), rate) != 0).double().mean()
    assert least <= kept <= most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_places_do_what_a_mask_of_them_does(dtype):
    torch.manual_seed(0)
    keep = torch.rand(6, 5) > 0.4
    dropped = DropoutMask(np.flatnonzero(~keep))
    x = torch.randn(7, 5, dtype=dtype)  # a row behind those that count
    residual = torch.randn(7, 5, dtype=torch.promote_types(dtype, torch.float32))
    whole = torch.cat([keep, torch.ones(1, 5, dtype=torch.bool)])
    given = x.clone().requires_grad_(True)
    out = masked(given, dropped, 2.5)
    torch.testing.assert_close(out, x * whole * 2.5)
    (slope,) = torch.autograd.grad(out.sum(), given)
    torch.testing.assert_close(slope, (whole * 2.5).to(dtype))
    out = add_masked(residual, given, dropped, 2.5)
    torch.testing.assert_close(out, residual + x * whole * 2.5, atol=0.02, rtol=0.01)
    (slope,) = torch.autograd.grad(out.sum(), given)
    torch.testing.assert_close(slope, (whole * 2.5).to(dtype))
    changed = x.clone()
    taken = dropped.take_out(changed)
    assert torch.equal(changed, x * whole)
    dropped.put_back(changed, taken)
    assert torch.equal(changed, x)


def test_dropout_trains_with_the_rates_of_config_json(tiny):
    encoder = our_encoder(tiny)
    batch = pack([np.arange(5, 25)] * 3, [20] * 3)
    plain, noisy = encoder(batch), encoder(batch, dropout=Dropout(0))
    assert not torch.allclose(plain, noisy)
    assert not torch.allclose(noisy[:20], noisy[20:40])  # equal sequences, their own masks


# ---- weights that do not fit


def rewrite(folder: Path, change) -> None:
    state = to_hf(load_encoder_state(folder))
    change(state)
    (folder / "model.safetensors").unlink()
    save_file(state, folder / "model.safetensors")


def test_a_missing_key_is_named(tiny):
    rewrite(tiny, lambda s: s.pop("encoder.layer.1.attention.self.key.bias"))
    with pytest.raises(InputError, match=r"encoder\.layer\.1\.attention\.self\.key\.bias.*missing"):
        load_encoder_state(tiny)


def test_a_misshapen_key_is_named(tiny):
    rewrite(tiny, lambda s: s.update({"pooler.dense.bias": torch.zeros(3)}))
    with pytest.raises(InputError, match=r"pooler\.dense\.bias.*\[3\].*\[16\]"):
        load_encoder_state(tiny)


def test_a_key_that_is_too_much_is_named(tiny):
    rewrite(tiny, lambda s: s.update({"encoder.layer.7.output.dense.bias": torch.zeros(16)}))
    with pytest.raises(InputError, match=r"encoder\.layer\.7\.output\.dense\.bias"):
        load_encoder_state(tiny)


def test_published_names_are_read(tiny):
    """Hub checkpoints carry a prefix, gamma and beta, and the heads of pretraining."""
    state = to_hf(load_encoder_state(tiny))
    old = {
        "bert." + k.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): v
        for k, v in state.items()
    }
    wanted = load_encoder_state(tiny)
    save_file(old | {"cls.predictions.bias": torch.zeros(50)}, tiny / "model.safetensors")
    found = load_encoder_state(tiny)
    assert found is not wanted
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_pickle_is_refused_by_name(tiny):
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pytorch_model\.bin is a pickle"):
        load_encoder_state(tiny)


def test_damaged_weights_are_refused(tiny):
    file = tiny / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="not a readable safetensors"):
        load_encoder_state(tiny)


def test_another_kind_of_model_is_refused(tiny):
    file = tiny / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_type": "roberta"}))
    with pytest.raises(InputError, match="roberta"):
        read_shape(tiny)


@pytest.mark.parametrize(
    ("key", "value", "right"),
    [
        ("num_attention_heads", 0, "at least 1"),
        ("num_attention_heads", -2, "at least 1"),
        ("num_attention_heads", 3, "does not divide"),
        ("hidden_size", 10**30, "below 2147483648"),
        ("vocab_size", float("inf"), "infinity to integer is missing or not a number"),
        ("layer_norm_eps", float("nan"), "at least 0 and below 1"),
        ("hidden_dropout_prob", 1.0, "at least 0 and below 1"),
        ("attention_probs_dropout_prob", -0.1, "at least 0 and below 1"),
    ],
)
def test_sizes_that_no_encoder_has_are_refused(tiny, key, value, right):
    file = tiny / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(InputError, match=rf"config\.json: .*{right}"):
        read_shape(tiny)
