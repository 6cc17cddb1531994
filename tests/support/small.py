"""A random BERT and a data folder, small enough to train in a blink."""

import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from minbert import Config

WORDS = ["good", "bad", "film", "plot", "very", "not", "the", "a", "was", "dull", "great", "cat",
         "dog", "sat", "ran", "how", "why", "is", "it", "who"]  # fmt: skip


def backbone(folder: Path, layers: int = 2, seed: int = 0, **values) -> Path:
    """Write a random BERT with a vocabulary of :data:`WORDS`, as transformers does.

    Args:
        values: of its configuration, beside what makes it small.
    """
    torch.manual_seed(seed)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    sizes = {
        "vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": layers,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 32,
        "initializer_range": 0.2,
    }  # fmt: skip
    config = BertConfig(**sizes | values)
    BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    return folder


def data(folder: Path, train: int = 40, dev: int = 20, seed: int = 0) -> Path:
    """Write a data folder with every file, in the paper's format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(2, 9)))

    def write(name: str, columns: list[str], rows: int, label) -> None:
        lines = ["\t".join(["", "id", *columns])]
        for index in range(rows):
            cells = [text() for column in columns if column.startswith("sentence")]
            lines.append("\t".join([str(index), f"{name}{index}", *cells, *label()]))
        (folder / name).write_text("\n".join(lines) + "\n")

    kinds = [
        ("ids-sst", ["sentence"], "sentiment", lambda: [str(rng.randint(0, 4))]),
        ("ids-cfimdb", ["sentence"], "sentiment", lambda: [str(rng.randint(0, 1))]),
        ("quora", ["sentence1", "sentence2"], "is_duplicate", lambda: [rng.choice(["0.0", "1.0"])]),
        ("sts", ["sentence1", "sentence2"], "similarity", lambda: [f"{rng.uniform(0, 5):.2f}"]),
    ]
    for name, columns, label_column, label in kinds:
        write(f"{name}-train.csv", [*columns, label_column], train, label)
        write(f"{name}-dev.csv", [*columns, label_column], dev, label)
        write(f"{name}-test-student.csv", columns, dev // 2, list)
    return folder


def folder(base: Path, **values) -> Path:
    """Write a backbone and a data folder side by side, for :func:`config`; return ``base``.

    Args:
        values: of the backbone's configuration.
    """
    backbone(base / "backbone", **values)
    data(base / "data")
    return base


def config(base: Path, **keys: object) -> Config:
    """Return the configuration of a short training on what :func:`folder` wrote."""
    return Config.from_keys(
        {
            "backbone": str(base / "backbone"),
            "data.path": str(base / "data"),
            "train.precision": "float32",
            "train.device": "cpu",  # tests hold tensors of the processor; test_gpu.py asks for one
            "train.batch_size": 4,
            "train.lr": 1e-2,
        }
        | keys
    )
