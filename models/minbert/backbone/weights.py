"""Pretrained weights in the Hugging Face layout: names mapped, every key and shape asserted.

A backbone is a folder with ``config.json``, ``model.safetensors`` and a tokenizer; or the name
``demo``; or a Hugging Face id whose folder was fetched by :func:`pull_backbone`. Only safetensors
is read: nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..common.messages import short
from ..common.paths import is_file, is_folder
from ..common.pickles import is_pickle, pickle_in, refusal
from ..errors import InputError
from ..model.encoder import SHAPES, Encoder, EncoderShape

WEIGHTS = "model.safetensors"
_PULLED = "backbones"  # folder in the cache
# Keys of config.json, in the order of EncoderShape.
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("intermediate_size", "max_position_embeddings", "type_vocab_size"),
)
_RATES = ("layer_norm_eps", "hidden_dropout_prob", "attention_probs_dropout_prob")
_LARGEST = 1 << 31

# Ours -> theirs, within a layer and outside of it. qkv is theirs three, one above the other.
_LAYER = {
    "attention_output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
}
_OUTER = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "pooler": "pooler.dense",
}
_QKV = ("query", "key", "value")
# Published weights carry these too; they are no part of the encoder.
_NOT_ENCODER = re.compile(r"^(cls\..*|embeddings\.position_ids)$")


def hf_names(ours: str) -> tuple[str, ...]:
    """Return the Hugging Face names of one of our encoder parameters: one, or three for qkv."""
    module, _, leaf = ours.rpartition(".")
    match = re.match(r"layers\.(\d+)\.(\w+)$", module)
    if not match:
        return (f"{_OUTER[module]}.{leaf}",)
    base = f"encoder.layer.{match[1]}"
    if match[2] == "qkv":
        return tuple(f"{base}.attention.self.{part}.{leaf}" for part in _QKV)
    return (f"{base}.{_LAYER[match[2]]}.{leaf}",)


def to_hf(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return our encoder's parameters under their Hugging Face names."""
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = hf_names(name)
        parts = tensor.chunk(len(names)) if len(names) > 1 else (tensor,)
        theirs.update({n: part.contiguous() for n, part in zip(names, parts, strict=True)})
    return theirs


def _common_name(theirs: str) -> str:
    """Undo what older checkpoints do to names: a prefix, and TensorFlow's gamma and beta."""
    name = theirs.removeprefix("bert.")
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


def read_shape(folder: Path) -> EncoderShape:
    """Read an encoder's sizes from ``config.json``.

    Raises:
        InputError: the file is missing or damaged, or it describes another kind of model.
    """
    file = folder / "config.json"
    try:
        raw = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({error})") from None
    wanted = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in wanted.items():
        if isinstance(raw, dict) and raw.get(key, value) != value:
            raise InputError(f"{file}: {key} is {raw[key]!r}; only {value!r} is supported")
    try:
        sizes = {key: int(raw[key]) for key in _SIZES}
        rates = {key: float(raw[key]) for key in _RATES}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{file}: {error} is missing or not a number; is this a BERT?") from None
    for key, number in (sizes | rates).items():
        low, high = (1, _LARGEST) if key in sizes else (0, 1)
        if not low <= number < high:
            right = f"at least {low} and below {high}"
            raise InputError(f"{file}: {key} is {short(number)}; it should be {right}")
    shape = EncoderShape(*sizes.values(), *rates.values())
    if shape.hidden_size % shape.num_heads:
        raise InputError(
            f"{file}: hidden_size {shape.hidden_size} does not divide by "
            f"num_attention_heads {shape.num_heads}"
        )
    return shape


def write_config(shape: EncoderShape, folder: Path) -> None:
    """Write ``config.json`` as Hugging Face's BertModel reads it."""
    raw = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": shape.segments,
        "layer_norm_eps": shape.norm_eps,
        "hidden_dropout_prob": shape.hidden_dropout,
        "attention_probs_dropout_prob": shape.attention_dropout,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", "utf-8")


def find_backbone(name: str, cache_dir: Path | None = None) -> Path:
    """Return the folder of a backbone.

    Raises:
        InputError: there is none under this name.
    """
    if name == "demo":
        return Path(__file__).parents[1] / "demo/encoder"
    if is_folder(name):
        return Path(name)
    if is_file(name):
        wrong = f"backbone: {name!r} is a file; give the folder that it lies in"
        raise InputError(refusal(name) if is_pickle(Path(name)) else wrong)
    pulled = None if cache_dir is None else pulled_folder(name, cache_dir)
    if pulled is not None and is_folder(pulled):
        return pulled
    raise InputError(
        f"backbone: {short(name)} is not a folder and was not pulled; give a folder with "
        f"config.json and {WEIGHTS}, or the name demo, or run: mtl backbone pull {name[:100]}"
    )


def pulled_folder(name: str, cache_dir: Path) -> Path:
    """Return where the backbone with this Hugging Face id lies once it is pulled."""
    return Path(cache_dir) / _PULLED / re.sub(r"[^\w.-]", "--", name)


def backbone_shape(name: str, cache_dir: Path | None = None) -> EncoderShape:
    """Return an encoder's sizes: of a folder, or of a name that is known without weights.

    Raises:
        InputError: neither a folder nor a known name.
    """
    short = name.rpartition("/")[2]
    try:
        return read_shape(find_backbone(name, cache_dir))
    except InputError:
        if short in SHAPES and not is_folder(name):
            return SHAPES[short]
        raise


def load_encoder_state(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a backbone as our encoder's parameters, float32.

    The tensors are shared between calls and must not be changed in place.

    Raises:
        InputError: no safetensors, or a key that is missing, misshapen or unknown.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise InputError(
            pickle_in(folder) or f"{file}: no such file; convert the weights to safetensors"
        )
    stat = file.stat()
    return _read_weights(file, stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns)


@lru_cache(maxsize=2)  # a warm worker reads its backbone once
def _read_weights(file: Path, mtime: int, size: int, changed: int) -> dict[str, Tensor]:
    with torch.device("meta"):
        expected = Encoder(read_shape(file.parent)).state_dict()
    try:
        with safe_open(file, framework="pt") as source:
            names = {_common_name(key): key for key in source.keys()}  # noqa: SIM118
            _refuse_extra(file, names, expected)
            return {
                ours: torch.cat(list(_pieces(file, source, names, ours, like)))
                for ours, like in expected.items()
            }
    except (SafetensorError, OSError) as error:
        wrong = f"{file}: not a readable safetensors file ({error})"
        raise InputError(refusal(file) if is_pickle(file) else wrong) from None


def _pieces(file: Path, source, names: dict[str, str], ours: str, like: Tensor):
    """Yield the tensors that make up one of our parameters, each checked against its shape."""
    theirs = hf_names(ours)
    shape = [like.shape[0] // len(theirs), *like.shape[1:]]
    for name in theirs:
        if name not in names:
            raise InputError(f"{file}: key {name!r} is missing; it should have shape {shape}")
        tensor = source.get_tensor(names[name])
        if list(tensor.shape) != shape:
            raise InputError(
                f"{file}: key {names[name]!r} has shape {list(tensor.shape)}; "
                f"by config.json it should be {shape}"
            )
        yield tensor.float()


def _refuse_extra(file: Path, names: dict[str, str], expected: dict[str, Tensor]) -> None:
    known = {name for ours in expected for name in hf_names(ours)}
    for name, given in sorted(names.items()):
        if name not in known and not _NOT_ENCODER.match(name):
            raise InputError(
                f"{file}: key {given!r} is not part of a BERT encoder of the shape in config.json"
            )


def tokenizer_file(folder: Path) -> Path:
    """Return the file that a backbone's tokenizer is made from.

    Raises:
        InputError: there is none.
    """
    for name in ("tokenizer.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: no tokenizer.json and no vocab.txt; a backbone needs one of them")


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """Return every file that a backbone's tokenizer is made from, :func:`tokenizer_file` first."""
    file, settings = tokenizer_file(folder), folder / "tokenizer_config.json"
    return (file, settings) if file.suffix == ".txt" and settings.is_file() else (file,)


@lru_cache(maxsize=64)
def _file_digest(file: Path, mtime: int, size: int, changed: int) -> str:
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def file_digest(file: Path) -> str:
    """Return the sha256 of a file, in hex; read once a process while the file stays as it is."""
    stat = file.stat()
    # The time of change, too: what is copied over it may bring its own modification time along.
    return _file_digest(file, stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns)


def backbone_digest(name: str, cache_dir: Path | None = None) -> str:
    """Return the sha256 of a backbone's ``model.safetensors``, in hex.

    Raises:
        InputError: there is no such backbone, or it has no safetensors.
    """
    folder = find_backbone(name, cache_dir)
    if not (folder / WEIGHTS).is_file():
        load_encoder_state(folder)  # says what is wrong
    return file_digest(folder / WEIGHTS)


def content_digest(name: str, cache_dir: Path | None = None) -> str:
    """Return a sha256 over all that is read of a backbone, in hex: weights, shape and tokenizer.

    Raises:
        InputError: see :func:`backbone_digest`; or it has no tokenizer.
    """
    weights, folder = backbone_digest(name, cache_dir), find_backbone(name, cache_dir)
    digest = hashlib.sha256(weights.encode())
    for file in (folder / "config.json", *tokenizer_files(folder)):
        if not file.is_file():
            read_shape(folder)  # says what is wrong
        digest.update(f"{file.name} {file_digest(file)}\n".encode())
    return digest.hexdigest()
