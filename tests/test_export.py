"""Models as files: PEFT and Hugging Face read them and compute what we compute.

Room: minbert/inference.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import BertModel

from minbert import (
    Config,
    InputError,
    SentenceModel,
    load_best,
    load_model,
    predict_files,
    save_model,
    train,
)
from minbert.data.datasets import load_corpus
from minbert.evaluation.evaluate import predict_dataset
from support import small

LLL = {"train.mode": "last-linear-layer"}
RECIPES = {
    "lora": LLL | {"lora.rank": 3, "lora.alpha": 2.5},
    "full-lora": {"lora.rank": 2, "lora.alpha": 4.0},
    "full": {},
    "heads": LLL,
    "full-pals": {"pals.kind": "shared", "pals.placement": "alternative"},
    "full-lora-pals": {"pals.kind": "low-rank", "pals.tasks": ["sst", "sts"], "lora.rank": 2},
}


@pytest.fixture(scope="module", params=RECIPES, ids=list(RECIPES))
def trained(request, tmp_path_factory):
    """A training of each kind, with its model folder."""
    base = tmp_path_factory.mktemp(request.param)
    backbone, data = small.backbone(base / "backbone"), small.data(base / "data")
    config = Config.from_keys(
        {"backbone": str(backbone), "data.path": str(data), "train.epochs": 2,
         "train.steps_per_epoch": 8, "train.lr": 2e-2, "train.precision": "float32"}
        | RECIPES[request.param]
    )  # fmt: skip
    for _ in train(config, cache_dir=base / "cache", checkpoint_dir=base / "checkpoints"):
        pass
    save_model(config, base / "checkpoints", base / "model", base / "cache")
    return request.param, config, base


def outputs_of_loaded(base: Path) -> dict[str, np.ndarray]:
    config, model = load_model(base / "model", base / "cache")
    corpus = load_corpus(config.data.path, config.backbone, base / "cache")
    device = torch.device("cpu")
    return {
        name: predict_dataset(model, dataset, device, torch.float32).numpy()
        for name, dataset in corpus.dev.items()
    }


def test_a_model_folder_predicts_what_the_best_epoch_did(trained):
    _, _, base = trained
    best = load_best(base / "checkpoints")
    for name, outputs in outputs_of_loaded(base).items():
        np.testing.assert_allclose(outputs, best.predictions[name].outputs, atol=1e-5)


def test_peft_and_transformers_compute_our_outputs(trained):
    kind, config, base = trained
    if "pals" in kind:
        pytest.skip("PEFT and transformers have no parallel adaptation layers")
    encoder = base / "model" if kind.startswith("full") else Path(config.backbone)
    oracle = BertModel.from_pretrained(encoder).eval()
    if "lora" in kind:
        oracle = PeftModel.from_pretrained(oracle, base / "model").eval()
    _, model = load_model(base / "model", base / "cache")
    corpus = load_corpus(config.data.path, config.backbone, base / "cache")
    dataset = corpus.dev["para"]
    with torch.inference_mode():
        for index in range(5):
            batch, _ = dataset.batch(np.array([index]))
            mine = model.encoder.pool(model.encoder(batch, model.adapter), batch)
            ids, types = batch.token_ids[None], batch.segments[None]
            wanted = oracle(input_ids=ids, token_type_ids=types).pooler_output
            torch.testing.assert_close(mine, wanted, atol=1e-5, rtol=1e-5)


def test_peft_scales_by_alpha_times_rank_over_rank(trained):
    kind, config, base = trained
    if "lora" not in kind:
        assert not (base / "model" / "adapter_config.json").exists()
        return
    settings = json.loads((base / "model" / "adapter_config.json").read_text())
    assert settings["lora_alpha"] == config.lora.alpha * config.lora.rank
    names = load_file(base / "model" / "adapter_model.safetensors")
    assert not any("attention.output" in name or "pooler" in name for name in names)


def test_a_folder_holds_only_what_was_trained(trained):
    kind, _, base = trained
    assert (base / "model" / "model.safetensors").exists() == kind.startswith("full")
    assert (base / "model" / "vocab.txt").exists() == kind.startswith("full")


# ---- the paper's prediction files

HEADERS = {
    "sst": "id \t Predicted_Sentiment ",
    "para": "id \t Predicted_Is_Paraphrase ",
    "sts": "id \t Predicted_Similiary ",
}


def read_predictions(file: Path) -> tuple[str, dict[str, str]]:
    header, *lines = file.read_text().splitlines()
    return header, dict(line.split(" , ") for line in lines)


def test_prediction_files_hold_every_row(trained, tmp_path):
    _, config, base = trained
    data = small.data(tmp_path / "data", seed=3)
    dev = data / "quora-dev.csv"
    dev.write_text(dev.read_text() + "99\tunlabelled\tgood film\t\t\n")  # unusable in training
    written = predict_files(base / "model", str(data), tmp_path / "out", base / "cache")
    assert sorted(p.name for p in written) == sorted(
        f"{task}-{split}-output.csv" for task in HEADERS for split in ("dev", "test")
    )
    sources = {"sst": "ids-sst", "para": "quora", "sts": "sts"}
    for file in written:
        task, split, _ = file.name.split("-")
        header, rows = read_predictions(file)
        name = f"{sources[task]}-{split}{'-student' if split == 'test' else ''}.csv"
        ids = [line.split("\t")[1] for line in (data / name).read_text().splitlines()[1:]]
        assert header == HEADERS[task]
        assert list(rows) == ids
        allowed = {"sst": {"0", "1", "2", "3", "4"}, "para": {"0", "1"}}
        if task == "sts":
            assert all("." in value and float(value) == float(value) for value in rows.values())
        else:
            assert set(rows.values()) <= allowed[task]


def test_predictions_agree_with_the_best_epoch(trained, tmp_path):
    _, config, base = trained
    predict_files(base / "model", config.data.path, tmp_path, base / "cache")
    best = load_best(base / "checkpoints").predictions
    for task in HEADERS:
        _, rows = read_predictions(tmp_path / f"{task}-dev-output.csv")
        values = np.array([float(v) for v in rows.values()])
        wanted = best[task].values if task == "sts" else best[task].classes
        np.testing.assert_allclose(values, wanted, atol=1e-5)


def test_smart_was_trained_in_float32_and_predicts_in_it(tmp_path, monkeypatch):
    """Also where the hardware multiplies bfloat16, which auto takes for other trainings."""
    monkeypatch.setattr("minbert.device.has_bfloat16", lambda device: True)
    base = small.folder(tmp_path)
    keys = {"train.epochs": 1, "train.steps_per_epoch": 2, "smart.lambda": 0.1}
    config = small.config(base, **keys, **{"train.precision": "auto"})
    for _ in train(config, cache_dir=base / "cache", checkpoint_dir=base / "checkpoints"):
        pass
    save_model(config, base / "checkpoints", base / "model", base / "cache")
    best = load_best(base / "checkpoints").predictions["sts"]
    predict_files(base / "model", config.data.path, base / "out", base / "cache")
    _, rows = read_predictions(base / "out" / "sts-dev-output.csv")
    values = np.array([float(v) for v in rows.values()])
    np.testing.assert_allclose(values, best.values, atol=1e-5)
    answers = SentenceModel(base / "model", base / "cache").predict("sts", best.texts)
    np.testing.assert_allclose(answers, best.values, atol=1e-5)


def test_a_trained_encoder_that_is_gone_is_not_replaced(trained, tmp_path):
    """By the backbone that its training began with."""
    kind, _, base = trained
    copy = shutil.copytree(base / "model", tmp_path / "model")
    (copy / "model.safetensors").unlink(missing_ok=True)
    if kind.startswith("full"):
        with pytest.raises(InputError, match=r"model/model\.safetensors: no such file"):
            load_model(copy, base / "cache")
    else:
        load_model(copy, base / "cache")


def test_another_backbone_is_refused(trained, tmp_path):
    kind, config, base = trained
    if kind.startswith("full"):
        return
    other = small.backbone(tmp_path / "other", seed=9)
    text = (base / "model" / "config.toml").read_text().replace(config.backbone, str(other))
    copy = tmp_path / "model"
    copy.mkdir()
    for file in (base / "model").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "config.toml").write_text(text)
    with pytest.raises(InputError, match="stands on a backbone with sha256"):
        load_model(copy, base / "cache")


def test_lora_that_the_configuration_denies_is_not_left_out(trained, tmp_path):
    kind, _, base = trained
    copy = shutil.copytree(base / "model", tmp_path / "model")
    file = copy / "config.toml"
    text, changed = re.subn(r'"lora\.rank" = [1-9]', '"lora.rank" = 0', file.read_text())
    assert changed == ("lora" in kind)
    file.write_text(text)
    if changed:
        with pytest.raises(InputError, match=r"heads\.safetensors: .*lora_A' is no part"):
            load_model(copy, base / "cache")


def test_a_missing_file_is_named(trained, tmp_path):
    with pytest.raises(InputError, match=r"config\.toml.*model folder"):
        load_model(tmp_path, None)
    _, config, base = trained
    data = small.data(tmp_path / "data")
    (data / "sts-test-student.csv").unlink()
    with pytest.raises(InputError, match=r"sts-test-student\.csv"):
        predict_files(base / "model", str(data), tmp_path / "out", base / "cache")
    assert not (tmp_path / "out").exists()
