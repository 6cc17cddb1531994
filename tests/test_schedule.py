"""Which task next, and which examples.

Room: minbert/training.
"""

from collections import Counter

import numpy as np
import pytest

from minbert.config import ScheduleConfig
from minbert.training.schedule import Draws, Schedule

SIZES = {"sst": 8544, "para": 282_841, "sts": 6040}


def schedule(
    policy, per="batch", anneal=0.8, epochs=100, steps=300, seed=11711, sizes=SIZES, **keys
):
    config = ScheduleConfig(policy=policy, per=per, anneal=anneal, **keys)
    return Schedule(
        config, sizes, epochs=epochs, steps_per_epoch=steps, batch_size=16, seed=seed
    )


@pytest.mark.parametrize(("epoch", "alpha"), [(1, 1.0), (100, 0.2), (34, 1 - 0.8 * 33 / 99)])
def test_annealing_follows_equation_1_and_reaches_its_end(epoch, alpha):
    weights = np.array(list(SIZES.values()), dtype=float) ** alpha
    chances = schedule("annealed").probabilities(epoch)
    np.testing.assert_allclose(list(chances.values()), weights / weights.sum(), rtol=1e-12)


def test_annealing_is_adjustable_and_takes_one_epoch():
    assert schedule("annealed", anneal=0.0).probabilities(100)["para"] > 0.95
    flat = schedule("annealed", anneal=1.0).probabilities(100)
    np.testing.assert_allclose(list(flat.values()), 1 / 3)
    assert schedule("annealed", epochs=1).probabilities(1)["para"] > 0.95


@pytest.mark.parametrize(("policy", "alpha"), [("proportional", 1), ("square-root", 0.5)])
def test_constant_exponents(policy, alpha):
    weights = np.array(list(SIZES.values())) ** alpha
    for epoch in (1, 57):
        chances = schedule(policy).probabilities(epoch)
        np.testing.assert_allclose(list(chances.values()), weights / weights.sum())


@pytest.mark.parametrize("policy", ["annealed", "random", "round-robin", "square-root"])
def test_one_task_alone_can_be_trained(policy):
    alone = schedule(policy, tasks=["sts"], epochs=2, steps=0, sizes={"sst": 90, "sts": 33})
    assert alone.epoch(1) == ["sts"] * 3 and alone.total_steps() == 6
    pair = schedule(policy, tasks=["sst", "sts"])
    assert set(pair.epoch(50)) == {"sst", "sts"}


def test_tasks_are_drawn_with_their_chances():
    drawn = Counter(schedule("annealed", steps=20_000).epoch(100))
    for task, chance in schedule("annealed").probabilities(100).items():
        assert abs(drawn[task] / 20_000 - chance) < 0.015
    uniform = Counter(schedule("random", steps=20_000).epoch(7))
    assert all(abs(count / 20_000 - 1 / 3) < 0.015 for count in uniform.values())


def test_round_robin_keeps_its_order_across_epochs():
    plan = schedule("round-robin", steps=4, epochs=3)
    tasks = [task for epoch in (1, 2, 3) for task in plan.epoch(epoch)]
    assert tasks == ["sst", "para", "sts"] * 4


def test_per_epoch_there_is_one_task_an_epoch():
    turns = schedule("round-robin", per="epoch", steps=5, epochs=4)
    assert [set(turns.epoch(e)) for e in (1, 2, 3, 4)] == [{"sst"}, {"para"}, {"sts"}, {"sst"}]
    chosen = [schedule("random", per="epoch").epoch(e) for e in range(1, 61)]
    assert all(len(set(tasks)) == 1 and len(tasks) == 300 for tasks in chosen)
    assert min(Counter(tasks[0] for tasks in chosen).values()) > 8


def test_no_steps_an_epoch_means_the_whole_dataset():
    sizes = {"sst": 33, "para": 160, "sts": 1}
    epoch = schedule("round-robin", per="epoch", steps=0, epochs=3, sizes=sizes)
    assert [len(epoch.epoch(e)) for e in (1, 2, 3)] == [3, 10, 1]
    assert epoch.total_steps() == 14
    batch = schedule("random", steps=0, epochs=3, sizes=sizes)
    assert len(batch.epoch(2)) == 14 and batch.total_steps() == 42


def test_the_seed_decides_and_epochs_differ():
    one, two = schedule("random"), schedule("random")
    assert one.epoch(5) == two.epoch(5) != one.epoch(6)
    assert one.epoch(5) != schedule("random", seed=1).epoch(5)


@pytest.mark.parametrize(("size", "batch"), [(10, 4), (12, 4), (3, 8), (1, 1)])
def test_each_pass_draws_every_example_once_in_a_new_order(size, batch):
    draws = Draws(size, batch, seed=1, name="sst")
    orders = []
    for _ in range(3):
        drawn = [draws.next() for _ in range(-(-size // batch))]
        assert max(map(len, drawn)) <= batch
        orders.append(np.concatenate(drawn).tolist())
        assert sorted(orders[-1]) == list(range(size))
    assert size < 4 or orders[0] != orders[1] != orders[2]


def test_draws_go_on_from_their_state():
    one = Draws(50, 8, seed=2, name="sts")
    for _ in range(11):
        one.next()
    two = Draws(50, 8, seed=2, name="sts")
    two.load_state(one.state())
    for _ in range(11):
        assert np.array_equal(one.next(), two.next())
