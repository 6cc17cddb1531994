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
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from minbert import Config, train
from minbert.backbone import _file_digest, find_backbone, tokenizer_file
from minbert.checkpoint import BEST
from minbert.data import load_corpus
from minbert.reading import find_data
from minbert.runtime import has_bfloat16, pick_dtype
from minbert.schedule import Draws
from minbert.tasks import HEADS
from minbert.training import Training

LORA = {"train.mode": "last-linear-layer", "lora.rank": 4}
PAPER_MB = 419.0  # the smallest checkpoint of the paper's code
LR = 1e-5
TURN = 4  # batches


@dataclass
class Line:
    """One line of the table; seconds, or bytes.

    ``ratio`` is how many times ours is better, or what ours costs; ``target`` says which.
    """

    what: str
    ours: float
    theirs: float
    ratio: float
    target: str
    spread: str = ""
    met: bool | None = None


class Side:
    """Something that is timed, and its seconds a round."""

    def __init__(self, run: Callable[[], object]) -> None:
        self._run = run
        self.seconds: list[float] = []

    def turn(self, per: int = 1) -> None:
        """Run once; note the seconds, each of ``per`` parts."""
        begin = time.perf_counter()
        self._run()
        self.seconds.append((time.perf_counter() - begin) / per)

    def gather(self, counts: list[int]) -> None:
        """Make one figure of the last turns, their mean; ``counts`` is how much each weighs."""
        last = self.seconds[-len(counts) :]
        self.seconds[-len(counts) :] = [float(np.average(last, weights=counts))]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return (high - low) / 2 / self.median


def compare(what: str, ours: Side, theirs: Side, least: float | None) -> Line:
    """How many times ours is faster; None has no target."""
    ratio = theirs.median / ours.median
    target = "" if least is None else f"at least {least:g}x"
    return _line(what, ours, theirs, ratio, target, None if least is None else ratio >= least)


def cost(what: str, ours: Side, theirs: Side, most: float | None) -> Line:
    """How many times as long ours takes."""
    ratio = ours.median / theirs.median
    target = "" if most is None else f"at most {most:g}x"
    return _line(what, ours, theirs, ratio, target, None if most is None else ratio <= most)


def _line(what, ours: Side, theirs: Side, ratio: float, target: str, met: bool | None) -> Line:
    spread = f"±{ours.spread:.0%} / ±{theirs.spread:.0%}"
    return Line(what, ours.median, theirs.median, ratio, target, spread, met)


# ---- steps


def ours(options, **keys) -> Training:
    """Set up a training of ours."""
    names = {"backbone": options.backbone, "data.path": options.data, "train.lr": LR}
    return Training(Config.from_keys(names | {"train.epochs": 1} | keys), options.cache)


class Batches:
    """The batches that everyone trains on: the paper's mix of tasks, and each task's own draws."""

    def __init__(self, training: Training, steps: int) -> None:
        self._mix = iter(training.schedule.epoch(1))
        config = training.config.train
        self._draws = {
            name: Draws(len(dataset), config.batch_size, config.seed, name)
            for name, dataset in training.corpus.train.items()
        }
        self._steps = steps
        self.now: list[tuple[str, np.ndarray]] = []

    def turns(self) -> Iterator[int]:
        """Take up the batches of a round, a few at a time; yield how many."""
        for begin in range(0, self._steps, TURN):
            count = min(TURN, self._steps - begin)
            tasks = [next(self._mix) for _ in range(count)]
            self.now = [(task, self._draws[task].next()) for task in tasks]
            yield count


def step_sides(options) -> tuple[dict[str, Side], Batches]:
    """Set up everyone who takes training steps."""
    from steps_peer import Bert, Peer, with_lora

    trainings = {
        "plain": ours(options),
        "LoRA": ours(options, **LORA),
        "SMART": ours(options, **{"smart.lambda": 1e-3, "smart.mode": "noise"}),
        "PALs": ours(options, **{"pals.kind": "shared"}),
    }
    if options.bfloat16:
        trainings["plain float32"] = ours(options, **{"train.precision": "float32"})
    corpus, backbone = trainings["plain"].corpus, str(find_backbone(options.backbone))
    texts = {name: d.texts for name, d in corpus.train.items()}
    labels = {name: d.labels for name, d in corpus.train.items()}

    def peer(precision: str, lora: bool) -> Peer:
        model = Bert(backbone, HEADS, 0.3)
        return Peer(with_lora(model, 4, 1.0) if lora else model, backbone, texts, labels, LR,
                    precision)  # fmt: skip

    peers = {"transformers": peer("float32", False), "peft": peer("float32", True)}
    if options.bfloat16:
        peers["transformers bfloat16"] = peer("bfloat16", False)
        peers["peft bfloat16"] = peer("bfloat16", True)
    batches = Batches(trainings["plain"], options.steps)

    def our_steps(training: Training) -> None:
        for task, _ in batches.now:
            training.take_step(task)

    def their_steps(peer: Peer) -> None:
        for task, indices in batches.now:
            peer.step(task, indices)

    sides = {name: Side(lambda t=t: our_steps(t)) for name, t in trainings.items()}
    sides |= {name: Side(lambda p=p: their_steps(p)) for name, p in peers.items()}
    return sides, batches


def measure_steps(options, say) -> list[Line]:
    """Time training steps, everyone in turn."""
    sides, batches = step_sides(options)
    for number in range(options.rounds + 1):
        counts = []
        for count in batches.turns():
            counts.append(count)
            for side in sides.values():
                side.turn(per=count)
        for side in sides.values():
            side.gather(counts)
        seconds = ", ".join(f"{name} {side.seconds[-1]:.3f}" for name, side in sides.items())
        say(f"steps, round {number} of {options.rounds}: {seconds}")
    for side in sides.values():
        del side.seconds[0]  # warm-up
    of = sides.__getitem__
    lines = [compare("full-model step / transformers", of("plain"), of("transformers"), 8)]
    exact = of("plain")
    if options.bfloat16:
        exact = of("plain float32")
        lines += [
            compare("    / transformers, bfloat16", of("plain"), of("transformers bfloat16"), None),
            compare("    in float32 / transformers", exact, of("transformers"), None),
        ]
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
    model = Bert(backbone, HEADS, 0.3)
    sides = {"plain": Side(plain.evaluate), "LoRA": Side(lora.evaluate)}
    for precision in ("float32", "bfloat16") if options.bfloat16 else ("float32",):
        peer = Peer(model, backbone, texts, labels, LR, precision)
        sides[precision] = Side(lambda p=peer: [p.predict(task) for task in texts])
    for number in range(options.rounds + 1):
        for side in sides.values():
            side.turn(per=plain.dev.examples)
        rates = ", ".join(f"{name} {1 / side.seconds[-1]:.0f}/s" for name, side in sides.items())
        say(f"evaluation, round {number} of {options.rounds}: {rates}")
    for side in sides.values():
        del side.seconds[0]
    of = sides.__getitem__
    lines = [compare("dev example / transformers", of("plain"), of("float32"), 3.5)]
    if options.bfloat16:
        lines.append(compare("    / transformers, bfloat16", of("plain"), of("bfloat16"), None))
    return [*lines, cost("LoRA dev example / our full model", of("LoRA"), of("plain"), 1.05)]


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


# ---- memory and sizes, in processes of their own


def bert_base(backbone: Path, folder: Path) -> Path:
    """Write a BERT of base size with random weights, and the tokenizer of another backbone."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig()).save_pretrained(folder)
    shutil.copy(tokenizer_file(backbone), folder)
    return folder


def train_once(options) -> dict:
    """Train a few steps at BERT-base shape; return the peak memory and the checkpoint's size."""
    keys = {"backbone": options.backbone, "data.path": options.data, "train.lr": LR,
            "train.epochs": 1, "train.steps_per_epoch": 4, "train.eval_limit": 8}  # fmt: skip
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


# ---- the report


PARTS = {
    "steps": measure_steps,
    "evaluation": measure_evaluation,
    "data": measure_data,
    "memory": measure_memory,
}


def print_table(lines: list[Line]) -> None:
    """Print what was measured."""
    table = Table("what", *(("ours", "theirs", "ratio", "target", "spread")), title="Benchmarks")
    for column in table.columns[1:4]:
        column.justify = "right"
    for line in lines:
        mark = {True: " [green]met[/]", False: " [red]missed[/]", None: ""}[line.met]
        show = _size if line.ours > 1e4 else _seconds
        table.add_row(line.what, show(line.ours), show(line.theirs), f"{line.ratio:.2f}x",
                      line.target + mark, line.spread)  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 0.01 else f"{value * 1e3:.2f} ms"


def _size(value: float) -> str:
    return f"{value / 1e6:,.1f} MB"


def main() -> int:
    options = _options()
    if options.measure:
        print(json.dumps(train_once(options)))
        return 0
    with tempfile.TemporaryDirectory(prefix="mtl-steps-") as folder:
        options.cache = Path(options.cache or folder)
        options.bfloat16 = has_bfloat16(torch.device("cpu"))
        begin = os.getloadavg()
        lines = [
            line
            for part in options.parts
            for line in PARTS[part](options, lambda text: print(text, file=sys.stderr, flush=True))
        ]
    print_table(lines)
    record = {
        "threads": torch.get_num_threads(),
        "machine": platform.platform(),
        "processor": _processor(),
        "precision": str(pick_dtype("auto", torch.device("cpu"))),
        "load": {"before": begin, "after": os.getloadavg()},
        "backbone": Path(options.backbone).name,
        "data": Path(options.data).name,
        "rounds": options.rounds,
        "steps": options.steps,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "numpy")},
        "lines": [asdict(line) for line in lines],
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"load {begin[0]:.1f} before, {os.getloadavg()[0]:.1f} after; {options.output}")
    return 0


def _processor() -> str:
    with suppress(OSError):
        for row in Path("/proc/cpuinfo").read_text().splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", default="demo", help="data folder, as data.path")
    parser.add_argument("--backbone", default="demo", help="backbone folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps a round")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cache", type=Path, help="where tokens are kept; default: not kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("steps.json"))
    parser.add_argument("--measure", choices=("full", "lora"), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
