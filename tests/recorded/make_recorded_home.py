"""Record a small home with the `mtl` that is installed, for the tests of the versions after it.

    PYTHONPATH=tests python tests/recorded/make_recorded_home.py tests/recorded/VERSION.tar.xz

Nothing of mtl is imported, so that any version can be recorded. It takes a minute.

The archive holds, beside the home:

    tiny.toml      the study's file
    facts.json     what this version says of the home, and how it goes on with it
    export.csv     its `mtl study export`
    predictions/   its `mtl predict` of the best trial

In the home are a study of which two trials have ended, and whose dispatcher was killed in the
third; the best trial as the champion; a training that was interrupted. Left out is what no test
needs, or what is made again: caches, what workers printed, pictures and interactive pages.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import Any

import psutil

from support.commands import Outcome, mtl_process, start_mtl, wait_for
from support.recorded_homes import pack, restore

STUDY = """\
description = "Alpha of LoRA on the embedded demo"
sampler = "tpe"
trials = 4

[config]
backbone = "demo"
"data.path" = "demo"
"train.mode" = "last-linear-layer"
"train.epochs" = 4
"train.steps_per_epoch" = 6
"train.batch_size" = 8
"train.lr" = 1e-3
"train.eval_limit" = 40
"train.precision" = "float32"
"lora.rank" = 1

[search]
"lora.alpha" = { low = 1.0, high = 32.0, log = true }
"""
TRAINING = {
    "train.mode": "last-linear-layer", "train.epochs": "6", "train.steps_per_epoch": "5",
    "train.batch_size": "8", "train.eval_limit": "40", "train.precision": "float32",
}  # fmt: skip
QUESTIONS = [
    "The final scene shone.",
    ("The lawyer sold two old lamps.", "The attorney sold two ancient lamps."),
]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONUNBUFFERED": "1",
}  # fmt: skip
_ASK = """
import json, sys, mlflow
table = mlflow.pyfunc.load_model("models:/tiny@champion").predict(json.load(sys.stdin))
print(table.to_json(orient="records"))
"""
_LEFT_OUT = ("cache", "logs", "artifacts/optuna")  # of the home; the last are the dashboard's
_PICTURES = (".png", ".html")


def main(archive: Path) -> None:
    """Record a home and pack it, with what comes of going on with it."""
    # Helpers and mtl must be found from the home's folder, too.
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    for name in ("MLFLOW_TRACKING_URI", "MTL_STORAGE"):
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    # A shell has what it starts in the background ignore Ctrl-C, and with it what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="mtl-recorded-") as base:
        place, other = Path(base) / "recorded", Path(base) / "restored"
        run = record(place)
        facts = look(place, run)
        save(place, facts)
        pack(place, archive, wanted)
        restore(archive, other)
        save(place, facts | {"goes_on": go_on(other, run)})
        pack(place, archive, wanted)


def record(place: Path) -> str:
    """Record the study, the training and the champion; return the training's run id."""
    place.mkdir()
    (place / "tiny.toml").write_text(STUDY)
    kill_in_the_third_trial(place)
    mtl(place, "study", "promote", "tiny")
    return interrupt_a_training(place)


def look(place: Path, run: str) -> dict[str, Any]:
    """Return what this version says of the home; write down its table and its predictions."""
    said = {c: mtl(place, "study", c, "tiny", "--json").json for c in ("status", "best", "compare")}
    said["recorded"] = mtl(place, "study", "list", "--json").json["recorded"]
    if (said["status"]["complete"], said["status"]["unfinished"]) != (2, 1):
        raise SystemExit("the study was killed too late or too early; try again")
    mtl(place, "study", "export", "tiny", "-o", "export.csv")
    best = said["best"]["best"]["run_id"]
    mtl(place, "predict", best, "--data", "demo", "-o", "predictions")
    return said | {
        "version": mtl(place, "--version").out.split()[-1],
        "training": run,
        "questions": QUESTIONS,
        "answers": answers(place),
    }


def go_on(place: Path, run: str) -> dict[str, Any]:
    """Go on with study and training in another copy; return how they end."""
    mtl(place, "study", "run", "./tiny.toml", "--jobs", "1")
    rows = mtl(place, "study", "export", "tiny", "--json").json["trials"]
    keys = ("number", "state", "score", "params", "run_id")
    return {
        "trials": [{key: row[key] for key in keys} for row in rows],
        "training": mtl(place, "train", "--resume", run, "--json").json["scores"],
    }


def kill_in_the_third_trial(place: Path) -> None:
    """Run the study; kill -9 dispatcher and worker once the third trial has a checkpoint."""
    process = start(place, "study", "run", "./tiny.toml", "--jobs", "1")
    wait_for(process, "trial 2 epoch 1:")
    checkpoint, end = place / "home/checkpoints/tiny/2/last.safetensors", time.monotonic() + 30
    while not checkpoint.is_file() and time.monotonic() < end:
        time.sleep(0.001)
    workers = psutil.Process(process.pid).children()
    process.kill()
    for worker in workers:
        worker.kill()
    process.wait()


def interrupt_a_training(place: Path) -> str:
    """Press Ctrl-C in a training of the heads alone; return its run id."""
    sets = [word for key, value in TRAINING.items() for word in ("--set", f"{key}={value}")]
    process = start(place, "train", *sets)
    wait_for(process, "epoch 1:")
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    if process.wait() != 130:
        raise SystemExit(f"mtl train was not interrupted:\n{rest}")
    (config,) = (place / "home/checkpoints/train").glob("*/config.json")
    return config.parent.name


def answers(place: Path) -> list[dict[str, Any]]:
    """Ask the champion, as a user of MLflow does."""
    # Not here: MLflow would hand its address on to every later command.
    home = place / "home"
    addresses = {"MTL_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}"}
    done = subprocess.run(
        [sys.executable, "-c", _ASK],
        input=json.dumps(QUESTIONS),
        env={**os.environ, **addresses},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def wanted(name: str) -> bool:
    """Say whether a file of the place is packed."""
    inside = PurePosixPath(name)
    left_out = any(inside.is_relative_to(f"home/{folder}") for folder in _LEFT_OUT)
    return not left_out and inside.suffix not in _PICTURES


def save(place: Path, facts: dict[str, Any]) -> None:
    (place / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def mtl(place: Path, *words: str) -> Outcome:
    """Run `mtl` in the place, to its good end."""
    outcome = mtl_process(place, *words, MTL_HOME=str(place / "home"))
    if outcome.code:
        raise SystemExit(f"mtl {' '.join(words)}: {outcome}")
    return outcome


def start(place: Path, *words: str) -> subprocess.Popen:
    """Start `mtl` in the place; what it prints and complains of can be read from its stdout."""
    home = str(place / "home")
    return start_mtl(place, *words, stderr=subprocess.STDOUT, MTL_HOME=home)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
