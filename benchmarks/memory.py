"""Memory and sizes of trainings at BERT-base shape, each in a process of its own.

`steps.py --parts memory` runs it; by itself it trains once and prints what that took, as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from lines import Line

from minbert import Config, train
from minbert.backbone.weights import find_backbone, tokenizer_file
from minbert.training.checkpoint import BEST

PAPER_MB = 419.0  # the smallest checkpoint of the paper's code
LORA = {"train.mode": "last-linear-layer", "lora.rank": 4}


def bert_base(backbone: Path, folder: Path) -> Path:
    """Write a BERT of base size with random weights, and the tokenizer of another backbone."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    shutil.copy(tokenizer_file(backbone), folder)
    return folder


def train_once(options) -> dict:
    """Train a few steps at BERT-base shape; return the peak memory and the checkpoint's size."""
    keys = {"backbone": options.backbone, "data.path": options.data, "train.lr": 1e-5,
            "train.epochs": 1, "train.steps_per_epoch": 4, "train.eval_limit": 8,
            "train.precision": options.precision, "train.device": "cpu"}  # fmt: skip
    config = Config.from_keys(keys | (LORA if options.measure == "lora" else {}))
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        for _ in train(config, cache_dir=options.cache, checkpoint_dir=Path(folder)):
            pass
        size = (Path(folder) / BEST).stat().st_size
    return {"peak": _peak(), "size": size}


def _peak() -> int:
    """Return the most memory, in bytes, that this process has had since it began."""
    with suppress(OSError):  # Linux hands the peak of the parent down to what getrusage says
        for row in Path("/proc/self/status").read_text().splitlines():
            if row.startswith("VmHWM:"):
                return int(row.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_memory(options, say) -> list[Line]:
    """Measure trainings at BERT-base shape, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        base = bert_base(find_backbone(options.backbone), Path(folder))
        found = {}
        for mode in ("full", "lora"):
            command = [sys.executable, __file__, "--measure", mode, "--backbone", str(base),
                       "--data", options.data, "--cache", str(options.cache)]  # fmt: skip
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[mode] = json.loads(output)
            say(f"BERT-base {mode}: {found[mode]}")
    peaks = found["lora"]["peak"], found["full"]["peak"]
    size = found["lora"]["size"]
    smaller = PAPER_MB * 1e6 / size
    return [
        Line("peak memory, BERT-base, LoRA / full model", *peaks, peaks[0] / peaks[1],
             "at most 0.5x", met=peaks[0] / peaks[1] <= 0.5),
        Line("checkpoint, BERT-base, LoRA r=4 / the paper's", size, PAPER_MB * 1e6, smaller,
             "at least 100x", met=smaller >= 100),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--measure", choices=("full", "lora"), required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--precision", default="auto")
    print(json.dumps(train_once(parser.parse_args())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
