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
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..adapters.lora import SITES, Lora, LowRank
from ..backbone.weights import (
    WEIGHTS,
    backbone_digest,
    find_backbone,
    hf_names,
    to_hf,
    tokenizer_file,
    write_config,
)
from ..common.pickles import is_pickle, pickle_in, refusal
from ..common.weights_file import save_weights
from ..config import Config
from ..errors import InputError
from ..multitask import MultiTaskModel
from ..training.build import prepare_model
from ..training.checkpoint import best_weights, read_best
from ..training.trainer import load_weights

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
    save_weights(_detached(_head_tensors(model)), out_dir / "heads.safetensors")
    if model.pals is not None:
        save_weights(_detached(model.pals.state_dict()), out_dir / "pals.safetensors")
    if model.lora is not None:
        write_peft(model.lora, config.backbone, out_dir)
    if config.train.mode == "full-model":
        _write_encoder(model, find_backbone(config.backbone, cache_dir), out_dir)


def to_toml(config: Config) -> str:
    """Return a configuration as TOML: a ``[config]`` table, as a study file has it."""
    # JSON's strings, numbers, booleans and lists are TOML's.
    lines = [f'"{key}" = {json.dumps(value)}' for key, value in config.to_keys().items()]
    return "[config]\n" + "\n".join(lines) + "\n"


def _head_tensors(model: MultiTaskModel) -> dict[str, Tensor]:
    """Return the heads' own tensors, with their LoRA, by their names in the file."""
    tensors: dict[str, Tensor] = {
        f"{task}.{n}": p for task, h in model.heads.items() for n, p in h.named_parameters()
    }
    if model.lora is not None:
        for task in model.lora.heads:
            low_rank = model.lora.beside_head(task)
            tensors[f"{task}.lora_A"], tensors[f"{task}.lora_B"] = low_rank.a[0], low_rank.b[0]
    return tensors


def _detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _write_encoder(model: MultiTaskModel, backbone: Path, out_dir: Path) -> None:
    state = {name: p.detach() for name, p in model.encoder.named_parameters()}
    save_weights(to_hf(state), out_dir / WEIGHTS, metadata={"format": "pt"})
    write_config(model.encoder.shape, out_dir)
    for name in {tokenizer_file(backbone).name, "vocab.txt", "tokenizer_config.json"}:
        if (backbone / name).is_file():
            shutil.copyfile(backbone / name, out_dir / name)


def write_peft(lora: Lora, base: str, out_dir: Path) -> None:
    """Write the encoder's LoRA in PEFT's format.

    Args:
        base: what ``base_model_name_or_path`` says.
    """
    tensors = _detached(_peft_tensors(lora))
    save_weights(tensors, out_dir / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha * lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "target_modules": _TARGETS,
        "inference_mode": True,
    }
    (out_dir / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _peft_tensors(lora: Lora) -> dict[str, Tensor]:
    """Return the tensors of the encoder's LoRA, by their names in PEFT's format."""
    tensors: dict[str, Tensor] = {}
    for index in range(len(lora.layers)):
        for site in SITES:
            for name, a, b in _peft_parts(index, site, lora.beside(index, site)):
                tensors[f"{_PEFT}{name}.lora_A.weight"] = a
                tensors[f"{_PEFT}{name}.lora_B.weight"] = b
    return tensors


def _peft_parts(layer: int, site: str, low_rank: LowRank) -> Iterator[tuple[str, Tensor, Tensor]]:
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
        table = dict(tomllib.loads(file.read_text("utf-8"))["config"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        wrong = f"{file}: cannot be read ({error}); is this a run's model folder?"
        raise InputError(pickle_in(Path(folder)) or wrong) from None
    try:
        return Config.from_keys(table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def load_model(folder: Path, cache_dir: Path | None = None) -> tuple[Config, MultiTaskModel]:
    """Load a model folder that :func:`save_model` wrote.

    Raises:
        InputError: a file is missing or damaged, or the backbone is not the one it stands on.
    """
    folder = Path(folder)
    config = read_config(folder)
    if config.train.mode == "full-model":  # the encoder is its own, and must be there
        config = Config.from_keys(config.to_keys() | {"backbone": str(folder)})
    else:
        _check_backbone(folder, config, cache_dir)
    model = prepare_model(config, cache_dir, torch.device("cpu"))
    _fill(folder / "heads.safetensors", _head_tensors(model))
    if model.lora is not None:
        _fill(folder / "adapter_model.safetensors", _peft_tensors(model.lora))
    if model.pals is not None:
        _fill(folder / "pals.safetensors", model.pals.state_dict())
    return config, model


def _check_backbone(folder: Path, config: Config, cache_dir: Path | None) -> None:
    file = folder / "model.json"
    try:
        wanted = str(json.loads(file.read_text("utf-8"))["backbone_sha256"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read ({error}); is this a run's model?") from None
    digest = backbone_digest(config.backbone, cache_dir)
    if digest != wanted:
        raise InputError(
            f"{folder}: stands on a backbone with sha256 {wanted[:12]}…, but "
            f"{config.backbone} has {digest[:12]}…"
        )


def _read(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        wrong = f"{file}: cannot be read ({error})"
        raise InputError(refusal(file) if is_pickle(file) else wrong) from None


@torch.no_grad()
def _fill(file: Path, wanted: dict[str, Tensor]) -> None:
    """Copy a file's tensors into those of a model, by name.

    Raises:
        InputError: the file cannot be read, or a tensor is missing, misshapen or too much.
    """
    given = _read(file)
    if stray := sorted(given.keys() - wanted.keys()):
        raise InputError(f"{file}: tensor {stray[0]!r} is no part of what config.toml describes")
    for name, target in wanted.items():
        if name not in given:
            raise InputError(f"{file}: tensor {name!r} is missing")
        if given[name].shape != target.shape:
            raise InputError(
                f"{file}: tensor {name!r} has shape {list(given[name].shape)}; by config.toml it "
                f"should be {list(target.shape)}"
            )
        target.copy_(given[name])
