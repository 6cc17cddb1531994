"""Training steps and evaluations beside transformers and peft (`steps_peer.py`) on the same
batches, and beside each other. How to run it: README.md.

Every side is set up once; then all of them take turns: a few batches of training each, so that a
machine that others use, too, is as fast for one as for the other, but not one, which would find the
caches full of the others' weights. What is printed is the median of the rounds, and their spread:
half the distance of the quartiles, as a share of the median.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from lines import Line, Side, compare, cost, limit, print_table
from machine import device_name, machine
from memory import LORA, bert_base, measure_memory
from products import Products, forward_operations, step_operations
from steps_sides import LR, ours, step_sides

from minbert.backbone.weights import _file_digest, backbone_shape, find_backbone
from minbert.data.datasets import load_corpus
from minbert.data.files import find_data
from minbert.device import has_bfloat16, pick_device, pick_dtype
from minbert.tasks.builtin import HEAD_WIDTHS

# ---- steps


def measure_steps(options, say) -> list[Line]:
    """Time training steps, everyone in turn."""
    sides, batches = step_sides(options)
    products = Products(options.device, options.dtype)
    shape, operations = backbone_shape(options.backbone, options.cache), []
    for number in range(options.rounds + 1):
        counts, lengths = [], []
        for count in batches.turns():
            counts.append(count)
            lengths += batches.lengths()
            for side in sides.values():
                side.turn(per=count)
        for side in sides.values():
            side.gather(counts)
        products.turn(per=products.operations)
        operations.append(np.mean([step_operations(shape, each) for each in lengths]))
        seconds = ", ".join(f"{name} {side.seconds[-1]:.3f}" for name, side in sides.items())
        say(f"steps, round {number} of {options.rounds}: {seconds}")
    for side in (*sides.values(), products):
        del side.seconds[0]  # warm-up
    alone = Side.of(np.multiply(operations[1:], products.seconds))
    return [
        *_step_lines(options, sides),
        limit("products alone / full-model step", sides["plain"], alone),
    ]


def _step_lines(options, sides: dict[str, Side]) -> list[Line]:
    of = sides.__getitem__
    lines = [compare("full-model step / transformers", of("plain"), of("transformers"), 8)]
    exact = of("plain")
    if options.bfloat16:
        exact = of("plain float32")
        lines += [
            compare("    / transformers, bfloat16", of("plain"), of("transformers bfloat16"), None),
            compare("    in float32 / transformers", exact, of("transformers"), None),
        ]
    if options.compiled:
        lines.append(
            compare("    / transformers, compiled", of("plain"), of("transformers compiled"), None)
        )
    lines.append(compare("LoRA r=4 step / peft", of("LoRA"), of("peft"), 8))
    if options.bfloat16:
        lines += [
            compare("    / peft, bfloat16", of("LoRA"), of("peft bfloat16"), None),
            cost("SMART step / our bfloat16 step", of("SMART"), of("plain"), None),
        ]
    return [
        *lines,
        cost("SMART step / our float32 step", of("SMART"), exact, 2.2),
        cost("shared PALs step / our plain step", of("PALs"), of("plain"), 1.25),
    ]


# ---- evaluation


def measure_evaluation(options, say) -> list[Line]:
    """Time predictions of all dev sets, everyone in turn."""
    from steps_peer import Bert, Peer

    plain, lora = ours(options), ours(options, **LORA)
    dev, backbone = plain.corpus.dev, str(find_backbone(options.backbone))
    texts = {name: d.texts for name, d in dev.items()}
    labels = {name: d.labels for name, d in dev.items()}
    model = Bert(backbone, HEAD_WIDTHS, 0.3)
    shape = backbone_shape(options.backbone, options.cache)
    operations = sum(forward_operations(shape, d.lengths) for d in dev.values())
    products = Products(options.device, options.dtype)
    sides = {"plain": Side(plain.evaluate), "LoRA": Side(lora.evaluate)}
    for precision in ("float32", "bfloat16") if options.bfloat16 else ("float32",):
        peer = Peer(model, backbone, texts, labels, LR, precision, options.device)
        sides[precision] = Side(lambda p=peer: [p.predict(task) for task in texts])
    for number in range(options.rounds + 1):
        for side in sides.values():
            side.turn(per=plain.dev.examples)
        products.turn(per=products.operations)
        rates = ", ".join(f"{name} {1 / side.seconds[-1]:.0f}/s" for name, side in sides.items())
        say(f"evaluation, round {number} of {options.rounds}: {rates}")
    for side in (*sides.values(), products):
        del side.seconds[0]
    of = sides.__getitem__
    lines = [compare("dev example / transformers", of("plain"), of("float32"), 3.5)]
    if options.bfloat16:
        lines.append(compare("    / transformers, bfloat16", of("plain"), of("bfloat16"), None))
    alone = Side.of(np.multiply(operations / plain.dev.examples, products.seconds))
    return [
        *lines,
        cost("LoRA dev example / our full model", of("LoRA"), of("plain"), 1.05),
        limit("products alone / dev example", of("plain"), alone),
    ]


# ---- data


def measure_data(options, say) -> list[Line]:
    """Time the way from the files to a first batch, with tokens kept and without."""

    def first_batch(cache: Path) -> None:
        _file_digest.cache_clear()  # as in a process that starts
        corpus = load_corpus(options.data, options.backbone, cache)
        corpus.train["sst"].batch(np.arange(16))

    again = Side(lambda: first_batch(options.cache))
    anew = Side(lambda: first_batch(Path(tempfile.mkdtemp(dir=options.cache))))
    find_data(options.data, options.cache)
    for _ in range(min(3, options.rounds)):
        again.turn()
        anew.turn()
    say(f"data: {again.median:.3f} s, anew {anew.median:.3f} s")
    return [compare("files to first batch, second start / tokenising again", again, anew, 20)]


# ---- the report


PARTS = {
    "steps": measure_steps,
    "evaluation": measure_evaluation,
    "data": measure_data,
    "memory": measure_memory,
}


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="mtl-steps-") as folder:
        options.cache = Path(options.cache or folder)
        if options.base:
            given = find_backbone(options.backbone)
            options.backbone = str(bert_base(given, Path(folder) / "base"))
        options.bfloat16 = has_bfloat16(options.device)
        options.dtype = pick_dtype("auto", options.device)
        begin = os.getloadavg()
        lines = [
            line
            for part in options.parts
            for line in PARTS[part](options, lambda text: print(text, file=sys.stderr, flush=True))
        ]
    print_table(lines)
    record = {
        **machine("torch", "transformers", "peft", "numpy"),
        "device": device_name(options.device),
        "threads": torch.get_num_threads(),
        "precision": str(options.dtype),
        "load": {"before": begin, "after": os.getloadavg()},
        "backbone": Path(options.backbone).name,
        "data": Path(options.data).name,
        "rounds": options.rounds,
        "steps": options.steps,
        "lines": [asdict(line) for line in lines],
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{device_name(options.device)}, {options.dtype}")
    print(f"load {begin[0]:.1f} before, {os.getloadavg()[0]:.1f} after; {options.output}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", default="demo", help="data folder, as data.path")
    parser.add_argument("--backbone", default="demo", help="backbone folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps a round")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="auto", type=pick_device, help="auto, cpu or cuda")
    parser.add_argument("--base", action="store_true", help="BERT-base's shape, random weights")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, default=None,
                        help="beside compiled transformers, too; default: on CUDA")  # fmt: skip
    parser.add_argument("--cache", type=Path, help="where tokens are kept; default: not kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("steps.json"))
    options = parser.parse_args()
    if options.compiled is None:
        options.compiled = options.device.type == "cuda"
    return options


if __name__ == "__main__":
    sys.exit(main())
