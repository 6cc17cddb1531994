"""A trained model as files that other tools read: safetensors, in the layouts of PEFT and
Hugging Face.

A model's folder holds what was trained and nothing else:

``config.toml``            the configuration that made it
``model.json``             the best epoch, its scores, and which backbone it stands on (sha256)
``heads.safetensors``      the heads, with their LoRA matrices where there are some
``pals.safetensors``       the parallel adaptation layers, where there are some
``adapter_model.safetensors``, ``adapter_config.json``
                           LoRA on the encoder, as ``PeftModel.from_pretrained`` reads it
``model.safetensors``, ``config.json``, the tokenizer
                           the encoder, where it was trained, as Hugging Face's BertModel reads it

PEFT scales by ``lora_alpha / r`` where ours multiplies by alpha, so ``lora_alpha = alpha * r``.
"""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from .backbone import (
    WEIGHTS,
    backbone_digest,
    find_backbone,
    hf_names,
    to_hf,
    tokenizer_file,
    write_config,
)
from .checkpoint import best_weights, read_best
from .config import Config
from .errors import InputError
from .lora import SITES, LowRank
from .multitask import MultiTaskModel
from .pickles import is_pickle, pickle_in, refusal
from .training import load_weights, prepare_model

_PEFT = "base_model.model."
_TARGETS = (
    r".*encoder\.layer\.\d+\.(attention\.self\.(query|key|value)|intermediate\.dense|output\.dense)"
)


def save_model(
    config: Config, checkpoint_dir: Path, out_dir: Path, cache_dir: Path | None = None
) -> None:
    """Write the best epoch of a training as a model folder.

    Args:
        checkpoint_dir: where :func:`minbert.train` kept the best epoch.
        out_dir: the folder to write; made if it is not there.

    Raises:
        InputError: there was no evaluation, or the backbone cannot be found any more.
    """
    best = read_best(checkpoint_dir)
    model = prepare_model(config, cache_dir, torch.device("cpu"))
    load_weights(model.trained(), {f"weights/{n}": t for n, t in best_weights(best).items()})
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "config.toml").write_text(to_toml(config), "utf-8")
    about = {
        "format": 1,
        "epoch": best.state["best_epoch"],
        "scores": best.state["scores"],
        "backbone": config.backbone,
        "backbone_sha256": backbone_digest(config.backbone, cache_dir),
    }
    (out_dir / "model.json").write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    save_file(_heads(model), out_dir / "heads.safetensors")
    if model.pals is not None:
        save_file(_detached(model.pals.state_dict()), out_dir / "pals.safetensors")
    if model.lora is not None:
        write_peft(model, config.backbone, out_dir)
    if config.train.mode == "full-model":
        _write_encoder(model, find_backbone(config.backbone, cache_dir), out_dir)


def to_toml(config: Config) -> str:
    """Return a configuration as TOML: a ``[config]`` table, as a study file has it."""
    # JSON's strings, numbers, booleans and lists are TOML's.
    lines = [f'"{key}" = {json.dumps(value)}' for key, value in config.to_keys().items()]
    return "[config]\n" + "\n".join(lines) + "\n"


def _heads(model: MultiTaskModel) -> dict[str, Tensor]:
    tensors = {f"{task}.{n}": p for task, h in model.heads.items() for n, p in h.named_parameters()}
    if model.lora is not None:
        for task, low_rank in model.lora.heads.items():
            tensors[f"{task}.lora_A"], tensors[f"{task}.lora_B"] = low_rank.a[0], low_rank.b[0]
    return _detached(tensors)


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _write_encoder(model: MultiTaskModel, backbone: Path, out_dir: Path) -> None:
    state = {name: p.detach() for name, p in model.encoder.named_parameters()}
    save_file(to_hf(state), out_dir / WEIGHTS, metadata={"format": "pt"})
    write_config(model.encoder.shape, out_dir)
    for name in {tokenizer_file(backbone).name, "vocab.txt", "tokenizer_config.json"}:
        if (backbone / name).is_file():
            shutil.copyfile(backbone / name, out_dir / name)


def write_peft(model: MultiTaskModel, base: str, out_dir: Path) -> None:
    """Write the encoder's LoRA in PEFT's format.

    Args:
        base: what ``base_model_name_or_path`` says.
    """
    tensors: dict[str, Tensor] = {}
    for index, sites in enumerate(model.lora.layers):
        for site in SITES:
            for name, a, b in _peft_parts(index, site, sites[site]):
                tensors[f"{_PEFT}{name}.lora_A.weight"] = a.detach().contiguous()
                tensors[f"{_PEFT}{name}.lora_B.weight"] = b.detach().contiguous()
    save_file(tensors, out_dir / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": model.lora.rank,
        "lora_alpha": model.lora.alpha * model.lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "target_modules": _TARGETS,
        "inference_mode": True,
    }
    (out_dir / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _peft_parts(layer: int, site: str, low_rank: LowRank):
    """Yield a site's Hugging Face module names with the matrices A [r, in] and B [out, r]."""
    names = hf_names(f"layers.{layer}.{site}.weight")
    for name, a, b in zip(names, low_rank.a, low_rank.b, strict=True):
        yield name.removesuffix(".weight"), a, b


def read_config(folder: Path) -> Config:
    """Read the configuration of a model folder.

    Raises:
        InputError: the file is missing or damaged.
    """
    file = Path(folder) / "config.toml"
    try:
        table = tomllib.loads(file.read_text("utf-8"))["config"]
    except (OSError, KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        wrong = f"{file}: cannot be read ({error}); is this a run's model folder?"
        raise InputError(pickle_in(Path(folder)) or wrong) from None
    return Config.from_keys(table)


def load_model(folder: Path, cache_dir: Path | None = None) -> tuple[Config, MultiTaskModel]:
    """Load a model folder that :func:`save_model` wrote.

    Raises:
        InputError: a file is missing or damaged, or the backbone is not the one it stands on.
    """
    folder = Path(folder)
    config = read_config(folder)
    trained_encoder = (folder / WEIGHTS).is_file()
    if trained_encoder:
        config = Config.from_keys(config.to_keys() | {"backbone": str(folder)})
    else:
        _check_backbone(folder, config, cache_dir)
    model = prepare_model(config, cache_dir, torch.device("cpu"))
    tensors = _read(folder / "heads.safetensors")
    if model.lora is not None:
        tensors |= _read(folder / "adapter_model.safetensors")
    try:
        _fill(model, tensors)
        if model.pals is not None:
            model.pals.load_state_dict(_read(folder / "pals.safetensors"))
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: a tensor is missing or misshapen ({error})") from None
    return config, model


def _check_backbone(folder: Path, config: Config, cache_dir: Path | None) -> None:
    about = json.loads((folder / "model.json").read_text("utf-8"))
    digest = backbone_digest(config.backbone, cache_dir)
    if digest != about["backbone_sha256"]:
        raise InputError(
            f"{folder}: stands on a backbone with sha256 {about['backbone_sha256'][:12]}…, but "
            f"{config.backbone} has {digest[:12]}…"
        )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        wrong = f"{file}: cannot be read ({error})"
        raise InputError(refusal(file) if is_pickle(file) else wrong) from None


@torch.no_grad()
def _fill(model: MultiTaskModel, tensors: dict[str, Tensor]) -> None:
    for task, head in model.heads.items():
        head.weight.copy_(tensors[f"{task}.weight"])
        head.bias.copy_(tensors[f"{task}.bias"])
    if model.lora is None:
        return
    for task, low_rank in model.lora.heads.items():
        low_rank.a[0].copy_(tensors[f"{task}.lora_A"])
        low_rank.b[0].copy_(tensors[f"{task}.lora_B"])
    for index, sites in enumerate(model.lora.layers):
        for site in SITES:
            for name, a, b in _peft_parts(index, site, sites[site]):
                a.copy_(tensors[f"{_PEFT}{name}.lora_A.weight"])
                b.copy_(tensors[f"{_PEFT}{name}.lora_B.weight"])
