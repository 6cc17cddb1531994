"""Everything that is claimed of GPUs, measured by one command in under five minutes: our training
steps and evaluations, what the card is busy with, and transformers and peft on the same data.

    python benchmarks/gpu.py --data DIR --backbone DIR -o gpu.json

How to read it: README.md. `--parts operations` needs no GPU; `--device cpu` tries every part on the
processor, where the figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_busy import measure_busy
from gpu_clock import Clock
from gpu_operations import measure_operations
from gpu_ours import config_of, measure_evaluation, measure_limit, measure_steps
from gpu_peers import measure_peers
from gpu_table import print_rows, rows
from machine import device_name, machine
from memory import bert_base

from minbert.backbone.weights import find_backbone
from minbert.data.datasets import load_corpus
from minbert.device import has_bfloat16, pick_dtype
from minbert.errors import InputError


def _operations(options, clock: Clock, say) -> dict:
    told = clock.attempt("operations", measure_operations) or {}
    clock.faults += told.pop("faults", [])
    return told


Part = Callable[..., dict]
PARTS: dict[str, tuple[Part, float]] = {  # each with the seconds that it may take
    "operations": (_operations, 15),
    "steps": (measure_steps, 85),
    "evaluation": (measure_evaluation, 20),
    "limit": (measure_limit, 10),
    "peers": (measure_peers, 110),
    "busy": (measure_busy, 35),  # last: what a profiler leaves behind slows nothing down
}
NO_GPU = {"operations"}  # parts that need none


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    options.device, left_out = _device_and_parts(options)
    if options.device is None:
        wanted = ", ".join(name for name in options.parts if name not in NO_GPU)
        print(f"gpu.py: no CUDA device is here, and parts need one: {wanted}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mtl-gpu-") as folder:
        try:
            _prepare(options, Path(folder))
        except (InputError, OSError) as error:
            print(f"gpu.py: {error}", file=sys.stderr)
            return 2
        record = _measure(options, left_out)
    if "operations" in record:
        print(json.dumps({"operations": record["operations"]}))
    print_rows(record["device"], rows(record["parts"]), on_gpu=options.device.type == "cuda")
    for each in record["left_out"]:
        print(f"left out: {each}")
    for each in record["faults"]:
        print(f"gpu.py: {each}", file=sys.stderr)
    print(f"{record['seconds']:.0f} s; {options.output}")
    return 1 if record["faults"] else 0


def _device_and_parts(options) -> tuple[torch.device | None, list[str]]:
    """Return where to measure, None where a part needs a GPU that is not here, and what is left
    out for that reason; ``options.parts`` becomes what is measured."""
    given, here = options.parts is not None, torch.cuda.is_available()
    options.parts = options.parts or list(PARTS)
    if options.device == "cpu":
        return torch.device("cpu"), []
    if here:
        return torch.device("cuda"), []
    needs = [name for name in options.parts if name not in NO_GPU]
    if needs and (given or options.device == "cuda"):
        return None, []
    options.parts = [name for name in options.parts if name in NO_GPU]
    return torch.device("cpu"), [f"{name}: no CUDA device is here" for name in needs]


def _prepare(options, folder: Path) -> None:
    """Find or make what is measured with; tokenising is no part's time.

    Raises:
        InputError: data or backbone cannot be used.
        OSError: the output cannot be written.
    """
    options.output.touch()
    options.cache = Path(options.cache or folder)
    options.bfloat16 = has_bfloat16(options.device)
    options.dtype = pick_dtype("auto", options.device)
    if set(options.parts) <= NO_GPU:
        return
    if options.device.type == "cuda" if options.base is None else options.base:
        given = find_backbone(options.backbone, options.cache)
        options.backbone = str(bert_base(given, folder / "bert-base"))
    load_corpus(options.data, options.backbone, options.cache)


def _measure(options, left_out: list[str]) -> dict:
    """Measure part by part; return what is written down, after each."""
    began, record = time.monotonic(), _circumstances(options) | {"parts": {}}
    record |= {"left_out": left_out, "faults": []}
    for name in (name for name in PARTS if name in options.parts):
        measure, seconds = PARTS[name]
        clock = Clock(seconds if options.seconds is None else options.seconds)
        found = record["parts"][name] = measure(options, clock, _say)
        record["left_out"] += clock.left_out
        record["faults"] += clock.faults
        if "operations" in found:
            record["operations"] = found["operations"]
        record |= {"seconds": time.monotonic() - began, "load_after": os.getloadavg()}
        options.output.write_text(json.dumps(record, indent=2) + "\n")
    return record


def _circumstances(options) -> dict:
    return {
        "device": device_name(options.device),
        **machine("torch", "transformers", "peft", "numpy"),
        "cuda": torch.version.cuda,
        "precision": str(options.dtype).removeprefix("torch."),
        "backbone": Path(options.backbone).name,
        "data": Path(options.data).name,
        "batch_size": config_of(options).train.batch_size,
        "rounds": options.rounds,
        "steps": options.steps,
        "load_before": os.getloadavg(),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", default="demo", help="data folder, as data.path")
    parser.add_argument("--backbone", default="demo", help="backbone folder")
    parser.add_argument("--base", action=argparse.BooleanOptionalAction, default=None,
                        help="BERT-base's shape, random weights; default: on a GPU")  # fmt: skip
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="default: all")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    parser.add_argument("--rounds", type=_positive, default=7)
    parser.add_argument("--steps", type=_positive, default=40,
                        help="of a round; a quarter without graphs")  # fmt: skip
    parser.add_argument("--seconds", type=float, help="each part's limit, in place of its own")
    parser.add_argument("--cache", type=Path, help="where tokens are kept; default: not kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
