"""The training loop: learning, exact resumption, checkpoints, divergence."""

import contextlib

import numpy as np
import pytest
import small
import torch

from minbert import (
    Config,
    DivergedError,
    InputError,
    TrainingStopped,
    evaluate_best,
    load_best,
    total_steps,
    train,
)
from minbert.checkpoint import BEST, LAST, PREVIOUS, read_last
from minbert.data import load_corpus
from minbert.trainer import _Keeper


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("training"))


def config(folder, **keys) -> Config:
    return small.config(folder, **({"train.epochs": 3, "train.steps_per_epoch": 7} | keys))


def run(config, folder, checkpoint_dir=None, stop_at=None):
    """Train to the end or to a step; return the reports and the steps."""
    steps, reports = [], []
    stop = (lambda: steps[-1].step == stop_at) if stop_at else None
    training = train(
        config,
        cache_dir=folder / "cache",
        checkpoint_dir=checkpoint_dir,
        on_step=steps.append,
        should_stop=stop,
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


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stop_at", [1, 7, 12, 20])
def test_a_stopped_training_ends_bit_for_bit_where_an_uninterrupted_one_does(
    folder, tmp_path, recipe, stop_at
):
    wanted = config(folder, **recipe)
    whole, all_steps = run(wanted, folder, tmp_path / "whole")
    first, early_steps = run(wanted, folder, tmp_path / "parts", stop_at)
    rest, late_steps = run(wanted, folder, tmp_path / "parts")
    assert early_steps[-1].step == stop_at and late_steps[0].step == stop_at + 1
    assert bits(first + rest, early_steps + late_steps) == bits(whole, all_steps)
    one, two = (read_last(tmp_path / name).tensors for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    best, again = load_best(tmp_path / "whole"), load_best(tmp_path / "parts")
    for task in best.predictions:
        assert np.array_equal(best.predictions[task].outputs, again.predictions[task].outputs)


def test_a_crash_repeats_steps_with_equal_numbers(folder, tmp_path, monkeypatch):
    """What a kill leaves behind: the newest checkpoint is older than the newest step."""
    wanted = config(folder, **LORA)
    whole, all_steps = run(wanted, folder)
    monkeypatch.setattr(_Keeper, "save_if_due", lambda self, seconds: None)
    run(wanted, folder, tmp_path, stop_at=5)
    monkeypatch.setattr(_Keeper, "save", lambda self: None)
    run(wanted, folder, tmp_path, stop_at=16)  # leaves nothing
    monkeypatch.undo()
    reports, steps = run(wanted, folder, tmp_path)
    assert steps[0].step == 6
    assert bits(reports, steps) == bits(whole, all_steps[5:])


def test_a_finished_training_yields_nothing_more(folder, tmp_path):
    wanted = config(folder)
    run(wanted, folder, tmp_path)
    assert run(wanted, folder, tmp_path) == ([], [])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(folder, tmp_path, caplog):
    wanted = config(folder, **LORA)
    whole, _ = run(wanted, folder)
    run(wanted, folder, tmp_path, stop_at=4)
    run(wanted, folder, tmp_path, stop_at=9)
    newest = tmp_path / LAST
    damaged = bytearray(newest.read_bytes())
    damaged[-9] ^= 4
    newest.write_bytes(damaged)
    assert read_last(tmp_path).state["numbers"]["step"] < 9
    assert "damaged" in caplog.text
    reports, _ = run(wanted, folder, tmp_path)
    assert reports[-1].scores == whole[-1].scores
    for name in (LAST, PREVIOUS):
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run(wanted, folder, tmp_path)


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


def test_bfloat16_stays_close_to_float32(folder):
    exact, _ = run(config(folder, **{"train.lr": 1e-3}), folder)
    rounded, _ = run(config(folder, **{"train.lr": 1e-3, "train.precision": "bfloat16"}), folder)
    for task, loss in exact[-1].losses.items():
        assert rounded[-1].losses[task] == pytest.approx(loss, rel=0.05)
