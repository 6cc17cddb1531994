"""What one would use instead, as `gpu.py` measures it: `steps_peer.py` on the paper's mix of tasks.

On ever new shapes: the batches as they come, each padded to its own longest. On repeated shapes: a
few of them, again and again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gpu_clock import Clock
from gpu_ours import LR, Mix, memory_of, timed
from lines import Side

from minbert.backbone.weights import find_backbone
from minbert.device import has_bfloat16
from minbert.tasks.builtin import HEAD_WIDTHS

if TYPE_CHECKING:  # it takes seconds to import, where it is not used
    from steps_peer import Peer
Batch = tuple[str, np.ndarray]
PEERS: dict[str, dict] = {
    "transformers": {},
    "peft": {"lora": True},
    "transformers compiled": {"compiled": True},  # last: nobody knows how long compiling takes
}
_AGAIN = 4  # batches that come again
_GRACE = 20.0  # seconds that a process has beyond its time, to end by itself


class Rows:
    """The examples of some batches alone: the others need not be tokenised.

    Attributes:
        texts, labels: of each task, the rows that are in a batch.
    """

    def __init__(self, mix: Mix, batches: Sequence[Batch]) -> None:
        self._kept = {
            task: np.unique(np.concatenate([i for name, i in batches if name == task]))
            for task in dict(batches)
        }
        train = mix.corpus.train
        self.texts = {t: [train[t].texts[i] for i in kept] for t, kept in self._kept.items()}
        self.labels = {t: train[t].labels[kept] for t, kept in self._kept.items()}

    def of(self, batch: Batch) -> Batch:
        """Return a batch whose examples are counted among these rows."""
        task, indices = batch
        return task, np.searchsorted(self._kept[task], indices)


def measure_peers(options, clock: Clock, say) -> dict:
    """Time the steps of transformers, as it is and compiled, and of peft."""
    found = {}
    for name in PEERS:
        told = clock.attempt(name, partial(_in_a_process, options, clock, name))
        if told is not None:
            found[name] = told
            new, again = told["new"]["mean_ms"], told["again"]["ms"]
            say(f"{name}: {new:.2f} ms as batches come, {again:.2f} ms on repeated shapes")
    return found


def _in_a_process(options, clock: Clock, name: str) -> dict:
    """Measure a peer in a process of its own: what a card prepared for a shape stays in one.

    Raises:
        TimeoutError: it took much longer than there was time.
    """
    given = {key: getattr(options, key) for key in ("data", "backbone", "cache", "rounds", "steps")}
    given |= {"device": options.device.type, "seconds": clock.left}
    command = [sys.executable, __file__, name, json.dumps(given, default=str)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=clock.left + _GRACE
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    if done.returncode:
        raise RuntimeError(f"its process ended with exit code {done.returncode}")
    told = json.loads(done.stdout.splitlines()[-1])
    clock.left_out += told.pop("left_out")
    return told


# ---- in that process


def main() -> int:
    name, given = sys.argv[1], json.loads(sys.argv[2])
    options = argparse.Namespace(**given)
    options.device, options.cache = torch.device(options.device), Path(options.cache)
    clock, mix = Clock(options.seconds), Mix(options)
    drawn = mix.batches(options.rounds * max(1, options.steps // 4))
    rows = Rows(mix, drawn)
    make = partial(_peer, options, rows, **PEERS[name])
    told = _measured(options, make, [rows.of(batch) for batch in drawn], clock, name)
    print(json.dumps(told | {"left_out": clock.left_out}))
    return 0


def _peer(options, rows: Rows, lora: bool = False, compiled: bool = False) -> Peer:
    from steps_peer import Bert, Peer, with_lora
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    backbone = str(find_backbone(options.backbone, options.cache))
    model = Bert(backbone, HEAD_WIDTHS, 0.3)
    model = with_lora(model, 4, 1.0) if lora else model
    precision = "bfloat16" if has_bfloat16(options.device) else "float32"
    return Peer(model, backbone, rows.texts, rows.labels, LR, precision, options.device, compiled)


def _measured(options, make: Callable[[], Peer], batches: list[Batch], clock: Clock, name: str):
    with memory_of(options) as found:
        peer = make()
        first = list({task: (task, indices) for task, indices in batches}.values())
        began = time.perf_counter()
        for batch in first:  # one of each task: libraries are loaded, models compiled
            peer.step(*batch)
        found["first_seconds"] = time.perf_counter() - began
        found["precision"] = peer.precision
        met = {shape(peer, batch) for batch in first}
        found["new"] = _as_they_come(peer, batches, met, clock, name)
        found["again"] = _again(peer, batches[:_AGAIN], options.rounds, clock, name)
    return found


def _as_they_come(
    peer: Peer, batches: list[Batch], met: set[tuple[int, int]], clock: Clock, name: str
) -> dict:
    """Time each batch; apart from the others those of a shape that none before had."""
    seconds, new = [], []
    for number in clock.rounds(f"{name}, new shapes", len(batches)):
        batch = batches[number]
        began = time.perf_counter()
        peer.step(*batch)  # it waits for its loss
        seconds.append(time.perf_counter() - began)
        new.append(shape(peer, batch) not in met)
        met.add(shape(peer, batch))
    ms, is_new = 1e3 * np.array(seconds), np.array(new)
    return {
        "steps": len(ms),
        "new_shapes": int(is_new.sum()),
        "mean_ms": float(ms.mean()),
        "new_ms": float(np.median(ms[is_new])) if is_new.any() else None,
        "met_ms": float(np.median(ms[~is_new])) if not is_new.all() else None,
        "rounds": ms.tolist(),
    }


def shape(peer: Peer, batch: Batch) -> tuple[int, int]:
    """Return the sequences of a batch, and the tokens that each is padded to."""
    task, indices = batch
    return len(indices), max(len(peer.features[task][i]["input_ids"]) for i in indices)


def _again(peer: Peer, batches: list[Batch], rounds: int, clock: Clock, name: str) -> dict:
    """Time a few batches, round after round."""
    for batch in batches:
        peer.step(*batch)
    side = Side(lambda: [peer.step(*batch) for batch in batches])
    for _ in clock.rounds(f"{name}, repeated shapes", rounds):
        side.turn(per=len(batches))
    return timed(side)


if __name__ == "__main__":
    sys.exit(main())
