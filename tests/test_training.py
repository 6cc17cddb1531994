"""The training loop: learning, exact resumption, checkpoints, divergence.

Room: minbert/training.
"""

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from minbert import (
    Config,
    DivergedError,
    InputError,
    TrainingStopped,
    estimates,
    evaluate_best,
    load_best,
    total_steps,
    train,
)
from minbert.common import awake
from minbert.data.datasets import load_corpus
from minbert.multitask import build_model
from minbert.training.build import Setup
from minbert.training.checkpoint import (
    BEST,
    LAST,
    PREVIOUS,
    DamagedError,
    Snapshot,
    _digest,
    read_snapshot,
    write_snapshot,
)
from minbert.training.checkpointer import Checkpointer
from minbert.training.device_step import DeviceSteps
from minbert.training.host_step import HostSteps
from minbert.training.trainer import Trainer
from support import small


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("training"))


def config(folder, **keys) -> Config:
    return small.config(folder, **({"train.epochs": 3, "train.steps_per_epoch": 7} | keys))


def run(config, folder, checkpoint_dir=None, stop_at=None, on_notice=None):
    """Train to the end or to a step; return the reports and the steps."""
    steps, reports = [], []
    stop = (lambda: steps[-1].step == stop_at) if stop_at else None
    training = train(
        config,
        cache_dir=folder / "cache",
        checkpoint_dir=checkpoint_dir,
        on_step=steps.append,
        should_stop=stop,
        on_notice=on_notice,
    )
    with contextlib.suppress(TrainingStopped):
        reports.extend(training)
    return reports, steps


LORA = {"lora.rank": 2, "lora.alpha": 4.0, "train.mode": "last-linear-layer"}
RECIPES = [
    {},
    LORA,
    {"lora.rank": 2, "schedule.policy": "round-robin", "train.grad_clip": 0.5},
    LORA | {"schedule.policy": "random", "schedule.per": "epoch", "train.warmup_steps": 9},
    {"train.weight_decay": 0.1, "train.eval_every": 2, "schedule.policy": "random"},
    {"pals.kind": "mixed", "smart.lambda": 0.5, "smart.alpha": 0.1, "smart.proximal": 0.1},
]


def bits(reports, steps):
    return (
        [(s.step, s.task, s.loss, s.lr, s.tokens) for s in steps],
        [(r.epoch, r.step, r.scores, r.best_score, r.best_epoch, r.losses) for r in reports],
    )


@pytest.fixture(scope="module", params=RECIPES)
def undisturbed(request, folder, tmp_path_factory):
    """A recipe, what a training by it said, and the folder with its checkpoints: to read."""
    checkpoints = tmp_path_factory.mktemp("undisturbed")
    return request.param, *run(config(folder, **request.param), folder, checkpoints), checkpoints


@pytest.mark.parametrize("stop_at", [1, 7, 12, 20])
def test_a_stopped_training_ends_bit_for_bit_where_an_uninterrupted_one_does(
    folder, tmp_path, undisturbed, stop_at
):
    recipe, whole, all_steps, checkpoints = undisturbed
    wanted = config(folder, **recipe)
    first, early_steps = run(wanted, folder, tmp_path / "parts", stop_at)
    rest, late_steps = run(wanted, folder, tmp_path / "parts")
    assert early_steps[-1].step == stop_at and late_steps[0].step == stop_at + 1
    assert bits(first + rest, early_steps + late_steps) == bits(whole, all_steps)
    one, two = (read_snapshot(at / LAST).tensors for at in (checkpoints, tmp_path / "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    best, again = load_best(checkpoints), load_best(tmp_path / "parts")
    for task in best.predictions:
        assert np.array_equal(best.predictions[task].outputs, again.predictions[task].outputs)


def test_all_of_an_optimizer_s_state_goes_on_where_the_model_is(folder):
    """On a GPU AdamW's fused kernel reads the number of steps there, too."""
    recipe, meta = config(folder, **{"train.weight_decay": 0.1}), torch.device("meta")
    trainer = Trainer(recipe, folder / "cache")
    trainer.take_step("sst")
    with meta:
        model = build_model(recipe, trainer.model.encoder.shape)
    steps = DeviceSteps(Setup(recipe, model, trainer.corpus, meta))
    steps.load(trainer.tensors())
    tensors = steps.tensors()
    assert tensors.keys() == trainer.steps.tensors().keys()
    assert all(tensor.is_meta for tensor in tensors.values())


def test_a_training_that_goes_on_by_another_arithmetic_says_so(folder, tmp_path, monkeypatch):
    at, told = tmp_path / "parts", []
    wanted = config(folder, **LORA)
    threads = torch.get_num_threads()

    run(wanted, folder, at, 2, told.append)
    run(wanted, folder, at, 4, told.append)
    assert told == []  # nothing has changed
    torch.set_num_threads(threads + 1)
    try:
        run(wanted, folder, at, 6, told.append)
    finally:
        torch.set_num_threads(threads)
    (notice,) = told
    assert f"(threads: {threads + 1}, was {threads})" in notice and "last bits" in notice

    told.clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "ANOTHER")
    run(wanted, folder, at, 8, told.append)  # threads as they were are another than before, too
    (notice,) = told
    assert f"threads: {threads}, was {threads + 1}" in notice and ", ANOTHER, was " in notice

    snapshot = read_snapshot(at / LAST)  # as version 0.1.0 wrote it, which did not say
    del snapshot.state["arithmetic"]
    write_snapshot(snapshot, at / LAST)
    told.clear()
    run(wanted, folder, at, 10, told.append)
    assert told == []


def test_minutes_are_those_in_which_the_process_was_awake(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(awake.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(awake, "_looked", 100.0)
    begin = awake.awake()
    clock[0] += 2.0
    assert awake.awake() - begin == 2.0
    clock[0] += 3600.0  # stopped, and woken
    assert 2.0 <= awake.awake() - begin <= 4.0
    clock[0] += 0.5
    assert 2.5 <= awake.awake() - begin <= 4.5


def test_a_crash_repeats_steps_with_equal_numbers(folder, tmp_path, monkeypatch):
    """What a kill leaves behind: the newest checkpoint is older than the newest step."""
    wanted = config(folder, **LORA)
    whole, all_steps = run(wanted, folder)
    monkeypatch.setattr(Checkpointer, "save_if_due", lambda self, seconds: None)
    run(wanted, folder, tmp_path, stop_at=5)
    monkeypatch.setattr(Checkpointer, "save", lambda self: None)
    run(wanted, folder, tmp_path, stop_at=16)  # leaves nothing
    monkeypatch.undo()
    reports, steps = run(wanted, folder, tmp_path)
    assert steps[0].step == 6
    assert bits(reports, steps) == bits(whole, all_steps[5:])


def test_a_training_loads_only_what_it_needs(folder):
    """Each of these takes as long to import as many steps do, in every worker."""
    code = (
        "import sys, json, pathlib, minbert\n"
        "keys, cache = json.loads(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        "list(minbert.train(minbert.Config.from_keys(keys), cache_dir=cache))\n"
        "print([name for name in sys.argv[3:] if name in sys.modules])"
    )
    keys = config(folder, **LORA, **{"train.epochs": 1, "train.steps_per_epoch": 1}).to_keys()
    heavy = ("torch._dynamo", "sympy", "scipy", "sklearn", "pandas", "matplotlib", "transformers")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(keys), str(folder / "cache"), *heavy],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_a_finished_training_yields_nothing_more(folder, tmp_path):
    wanted = config(folder)
    run(wanted, folder, tmp_path)
    assert run(wanted, folder, tmp_path) == ([], [])


def flip(file, place=-9):
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 4
    file.write_bytes(damaged)


def test_damaged_checkpoints_cost_time_and_nothing_else(folder, tmp_path, caplog):
    wanted = config(folder, **LORA)
    whole, all_steps = run(wanted, folder)
    for stop_at in (4, 9, 17):
        run(wanted, folder, tmp_path, stop_at=stop_at)
    before = read_snapshot(tmp_path / PREVIOUS)
    flip(tmp_path / LAST)
    notices = []
    reports, steps = run(wanted, folder, tmp_path, stop_at=18, on_notice=notices.append)
    assert steps[0].step == before.state["numbers"]["step"] + 1
    (notice,) = notices
    assert LAST in notice and "the checkpoint before is used" in notice and notice in caplog.text
    # The damaged one did not take the place of the good one.
    assert read_snapshot(tmp_path / PREVIOUS).state == before.state
    # A part that a kill left of a file is no checkpoint, and goes.
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"garbage")
    (tmp_path / "last.part").write_bytes(b"part")
    reports, steps = run(wanted, folder, tmp_path, on_notice=notices.append)
    assert len(notices) == 2 and "begins anew" in notices[1]
    assert bits(reports, steps) == bits(whole, all_steps)
    assert {file.name for file in tmp_path.iterdir()} == {
        *(LAST, PREVIOUS, BEST, "last.damaged", "previous.damaged")
    }


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), flip])
def test_a_lost_best_epoch_does_not_fail_a_training_at_its_end(
    folder, tmp_path, damage, monkeypatch
):
    wanted = config(folder, **LORA)
    whole, all_steps = run(wanted, folder)
    monkeypatch.setattr(Checkpointer, "save_if_due", lambda self, seconds: None)
    for stop_at in (5, 9):
        run(wanted, folder, tmp_path, stop_at=stop_at)
    damage(tmp_path / BEST)
    notices = []
    reports, steps = run(wanted, folder, tmp_path, on_notice=notices.append)
    # The checkpoint of step 9 stands on an evaluation that is lost; the one of step 5 does not.
    assert bits(reports, steps) == bits(whole, all_steps[5:])
    assert len(notices) == 1 and BEST in notices[0]
    # Finished, and the best is lost again, with nothing before it: all is trained again.
    damage(tmp_path / BEST)
    (tmp_path / PREVIOUS).unlink()
    reports, steps = run(wanted, folder, tmp_path)
    assert bits(reports, steps) == bits(whole, all_steps)
    assert load_best(tmp_path).epoch == whole[-1].best_epoch


def test_no_bytes_make_a_checkpoint_more_than_damaged(folder, tmp_path):
    """Whatever stands in a file: it is read as it was written, or refused in one line."""
    file = tmp_path / LAST
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    good = Snapshot(tensors | {"none": torch.zeros(0)}, {"x": [1, 2.5, "é"]})
    write_snapshot(good, file)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    hostile = [whole[:n] for n in (0, 7, 8, 40, len(whole) - 1)] + [whole + b"x", b"\xff" * 64]
    for _ in range(300):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] = rng.integers(256)
        hostile.append(bytes(spoilt))
    for bytes_ in hostile:
        file.write_bytes(bytes_)
        try:
            assert read_snapshot(file).state == good.state
        except DamagedError as error:
            assert str(file) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "state",
    [[], "x", {}, {"identity": 1, "numbers": {}}, {"numbers": {"epoch": "one"}}, {"numbers": {}}],
)
def test_a_whole_file_that_is_no_checkpoint_is_not_gone_on_from(folder, tmp_path, state):
    wanted = config(folder, **LORA)
    run(wanted, folder, tmp_path, stop_at=2)
    known = read_snapshot(tmp_path / LAST)
    if isinstance(state, dict) and "identity" not in state:
        numbers = known.state["numbers"] | state.get("numbers", {})
        tensors = {} if not state.get("numbers") else known.tensors  # the right words, no weights
        write_snapshot(Snapshot(tensors, known.state | {"numbers": numbers}), tmp_path / LAST)
    else:
        write_snapshot(Snapshot(known.tensors, state), tmp_path / LAST)
    notices = []
    _, steps = run(wanted, folder, tmp_path, stop_at=3, on_notice=notices.append)
    assert steps[0].step == 1 and "begins anew" in notices[0]


def test_a_checkpoint_is_safetensors_own_format(folder, tmp_path):
    wanted = config(folder, **LORA)
    run(wanted, folder, tmp_path, stop_at=2)
    known = read_snapshot(tmp_path / LAST)
    state = json.dumps(known.state)
    metadata = {"state": state, "digest": _digest(known.tensors, state)}
    ours = load_file(tmp_path / LAST)
    save_file(known.tensors, tmp_path / LAST, metadata=metadata)
    theirs = load_file(tmp_path / LAST)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    _, steps = run(wanted, folder, tmp_path, stop_at=3)
    assert steps[0].step == 3
    flip(tmp_path / LAST)
    with pytest.raises(DamagedError):
        read_snapshot(tmp_path / LAST)


@pytest.mark.parametrize("recipe", [LORA, RECIPES[-1]])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_training_stops_in_the_middle_of_an_evaluation(
    folder, tmp_path, monkeypatch, recipe, batch
):
    """Its checkpoint has all steps of the epoch, and the evaluation comes after it is resumed."""
    monkeypatch.setattr("minbert.evaluation.evaluate.TOKEN_BUDGET", 80)  # several batches a task
    wanted = config(folder, **recipe)
    whole, all_steps = run(wanted, folder)
    early, asked = [], []

    def should_stop():
        asked.append(early[-1].step)
        return asked.count(14) == 1 + batch  # once after the step, then after each batch

    with pytest.raises(TrainingStopped):
        list(
            train(
                wanted,
                cache_dir=folder / "cache",
                checkpoint_dir=tmp_path,
                on_step=early.append,
                should_stop=should_stop,
            )
        )
    numbers = read_snapshot(tmp_path / LAST).state["numbers"]
    assert (numbers["epoch"], numbers["in_epoch"], numbers["step"]) == (2, 7, 14)
    assert asked.count(7) > 6  # the first epoch's evaluation asked as often as it had batches
    reports, steps = run(wanted, folder, tmp_path)
    assert bits(whole[:1] + reports, early + steps) == bits(whole, all_steps)


def test_a_checkpoint_of_another_training_is_refused(folder, tmp_path):
    run(config(folder), folder, tmp_path, stop_at=2)
    with pytest.raises(InputError, match=r"train\.lr was 0\.01 and is 0\.02"):
        run(config(folder, **{"train.lr": 2e-2}), folder, tmp_path)


def test_the_best_epoch_is_kept(folder, tmp_path):
    reports, _ = run(config(folder, **{"train.epochs": 5}), folder, tmp_path)
    best = max(reports, key=lambda r: r.scores["score"])
    kept = load_best(tmp_path)
    assert (kept.epoch, kept.scores) == (best.epoch, best.scores)
    assert kept.predictions["sst"].ids == best.predictions["sst"].ids
    assert [r.best_score for r in reports] == list(
        np.maximum.accumulate([r.scores["score"] for r in reports])
    )


def test_divergence_names_step_and_task(folder, tmp_path):
    with pytest.raises(DivergedError, match=r"step \d+ \(task (sst|para|sts)\)") as caught:
        run(config(folder, **{"train.lr": 1e30}), folder, tmp_path)
    assert caught.value.step > 1
    assert not (tmp_path / BEST).exists()


@pytest.mark.parametrize("recipe", [LORA, LORA | {"train.grad_clip": 0.01}, {"lora.rank": 0}])
def test_a_long_batch_in_parts_teaches_what_it_does_whole(folder, tmp_path, recipe):
    """Gradients, losses and tokens; without dropout, whose masks differ."""
    trainings = []
    for most in (10**6, 30, 1):
        keys = {"train.mode": "last-linear-layer", "train.dropout": 0.0, "train.batch_size": 8}
        trainer = Trainer(config(folder, **keys | recipe), folder / "cache")
        for layer in trainer.model.encoder.layers:
            layer.rate = layer.attention_rate = 0.0
        trainer.model.encoder.embeddings.rate = 0.0
        assert trainer.steps.tokens_at_once > 10_000
        trainer.steps.tokens_at_once = most
        steps = [trainer.take_step(task) for task in ("sst", "para", "sts", "sst")]
        trainings.append(([(s.loss, s.tokens) for s in steps], trainer.trained))
    (whole, weights), *others = trainings
    assert max(tokens for _, tokens in whole) > 60
    for parts, trained in others:
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(trained[name], weight, atol=2e-6, rtol=1e-4)


def test_only_under_a_frozen_encoder_are_batches_cut(folder):
    """A whole gradient of every part would cost more memory than the part saves."""
    for keys in ({}, {"lora.rank": 2}, LORA | {"smart.lambda": 0.1}):
        assert Trainer(config(folder, **keys), folder / "cache").steps.tokens_at_once is None


def test_planned_steps_are_the_steps_taken(folder):
    for recipe in (
        {},
        {"train.steps_per_epoch": 0, "train.epochs": 1},
        {"train.steps_per_epoch": 0, "schedule.policy": "round-robin", "schedule.per": "epoch"},
    ):
        wanted = config(folder, **recipe)
        reports, steps = run(wanted, folder)
        assert total_steps(wanted, folder / "cache") == len(steps) == reports[-1].total_steps


def test_a_stratified_part_serves_while_exploring_and_the_whole_for_the_best(folder, tmp_path):
    whole, _ = run(config(folder), folder, tmp_path / "whole")
    limited = config(folder, **{"train.eval_limit": 8})
    reports, _ = run(limited, folder, tmp_path / "part")
    assert [r.eval_examples for r in reports] == [24] * 3 and whole[0].eval_examples == 60
    part = reports[-1].predictions["sst"]
    everything = whole[-1].predictions["sst"]
    place = [everything.ids.index(i) for i in part.ids]
    np.testing.assert_allclose(part.outputs, everything.outputs[place], atol=1e-5)
    best = evaluate_best(limited, tmp_path / "part", folder / "cache")
    wanted = whole[best.epoch - 1]
    assert best.eval_examples == 60 and best.scores == pytest.approx(wanted.scores)
    assert load_best(tmp_path / "part").scores == best.scores
    again = evaluate_best(limited, tmp_path / "part", folder / "cache")
    assert again.scores == best.scores


def test_the_stratified_part_is_fixed_and_has_every_label(folder):
    dataset = load_corpus(str(folder / "data"), str(folder / "backbone"), folder / "cache").dev
    for name in ("sst", "para"):
        part, again = (dataset[name].stratified(10) for _ in range(2))
        assert part.ids == again.ids and len(part) == 10
        shares = [np.bincount(d.labels.astype(int), minlength=5) for d in (part, dataset[name])]
        assert np.abs(shares[0] - shares[1] / 2).max() <= 1


def test_bfloat16_stays_close_to_float32(tmp_path):
    """On the demo: each step's loss, and dev scores within what the dev sets can tell apart."""
    found = {}
    for precision in ("float32", "bfloat16"):
        keys = {"train.precision": precision, "train.epochs": 1, "train.steps_per_epoch": 12,
                "train.lr": 2e-4, "train.eval_limit": 96}  # fmt: skip
        steps = []
        (found[precision],) = train(
            Config.from_keys(keys), cache_dir=tmp_path, on_step=steps.append
        )
        found[precision + " losses"] = [step.loss for step in steps]
    np.testing.assert_allclose(
        found["bfloat16 losses"], found["float32 losses"], rtol=0.03, atol=0.03
    )
    exact = estimates(found["float32"].predictions)
    for name, score in found["bfloat16"].scores.items():
        if name in exact:
            assert exact[name].low <= score <= exact[name].high, name


class Casts(TorchDispatchMode):
    """Counts the elements of weights that are brought to bfloat16."""

    def __init__(self, model):
        super().__init__()
        layers = model.encoder.layers.parameters()
        self.weights = {p.untyped_storage().data_ptr() for p in layers if p.dim() == 2}
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = []
        if function.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.to):
            given = [args[0]] if result.dtype != args[0].dtype else []
        elif function.overloadpacket == torch.ops.aten._foreach_copy_:
            given = args[1]
        known = [t for t in given if t.untyped_storage().data_ptr() in self.weights]
        self.elements += sum(t.numel() for t in known)
        return result


@pytest.mark.parametrize("recipe", [{}, LORA, {"train.mode": "last-linear-layer"}])
def test_a_weight_is_brought_to_bfloat16_once(folder, recipe):
    """Trained weights once a step and once an evaluation, frozen ones once a training: when its
    steps are made ready."""
    keys = {"train.precision": "bfloat16", **recipe}
    trainer = Trainer(config(folder, **keys), folder / "cache")
    layers = trainer.model.encoder.layers
    whole = sum(linear.weight.numel() for layer in layers for linear in layer.linears())
    found = []
    with Casts(trainer.model) as casts:
        for act in (
            lambda: setattr(trainer, "steps", HostSteps(trainer.setup)),
            *(trainer.evaluate, lambda: trainer.take_step("sst")),
            *(trainer.evaluate, lambda: trainer.take_step("para")),
        ):
            before = casts.elements
            act()
            found.append(casts.elements - before)
    # LoRA's evaluation has the sum of a weight and its matrices, a tensor of its own.
    assert found == ([whole, 0, 0, 0, 0] if recipe else [whole] * 5)


def test_a_stopped_training_in_bfloat16_ends_bit_for_bit_where_an_uninterrupted_one_does(
    folder, tmp_path
):
    wanted = config(folder, **{"train.precision": "bfloat16", "train.warmup_steps": 5})
    whole, all_steps = run(wanted, folder)
    first, early_steps = run(wanted, folder, tmp_path, stop_at=9)
    rest, late_steps = run(wanted, folder, tmp_path)
    assert bits(first + rest, early_steps + late_steps) == bits(whole, all_steps)
