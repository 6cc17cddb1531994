"""Which values a trial gets: points first, then the sampler, and the same after any restart."""

import optuna
import pytest

from mtl.ask import ask, ask_again, make_pruner
from mtl.spec import load_study
from mtl.tally import Tally

STUDY = """
sampler = "{sampler}"
trials = 16
[search]
"lora.rank" = [1, 2, 4]
"lora.alpha" = {{ low = 1.0, high = 32.0, log = true }}
"train.batch_size" = {{ low = 4, high = 16 }}
[[points]]
"lora.rank" = 4
"lora.alpha" = 8.0
"train.batch_size" = 8
[[points]]
"lora.rank" = 3
"train.lr" = 0.1
"""


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture
def load(tmp_path):
    def write_and_load(sampler: str, more: str = ""):
        path = tmp_path / "mine.toml"
        path.write_text(STUDY.format(sampler=sampler) + more)
        return load_study(str(path))

    return write_and_load


def _study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


def _score(config) -> float:
    return -abs(config.lora.alpha - 10.0) - config.train.batch_size / 16


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
def test_a_trial_that_was_half_asked_is_the_same_trial(load, sampler):
    spec = load(sampler)
    whole, broken = _study(), _study()
    tally = Tally(whole)
    for number in range(14):
        tally.update()
        trial, config = ask(whole, spec, tally)
        whole.tell(trial, _score(config))
        # The other dispatcher is killed with no, one or two values written down.
        broken.ask()
        storage = broken._storage
        for key in list(trial.params)[: number % 3]:
            kind = trial.distributions[key]
            storage.set_trial_param(number, key, kind.to_internal_repr(trial.params[key]), kind)
        again, same = ask_again(broken, spec, number)
        assert (again.number, again.params, same) == (number, trial.params, config)
        broken.tell(again, _score(same))


def test_points_come_first_and_their_other_keys_are_fixed(load):
    spec, study = load("tpe"), _study()
    first, config = ask(study, spec)
    assert first.params == {"lora.rank": 4, "lora.alpha": 8.0, "train.batch_size": 8}
    second, config = ask(study, spec)
    # Outside the search: part of the configuration, no parameter of Optuna's.
    assert (config.lora.rank, config.train.lr) == (3, 0.1)
    assert set(second.params) == {"lora.alpha", "train.batch_size"}
    third, config = ask(study, spec)
    assert set(third.params) == set(spec.search) and config.lora.rank in (1, 2, 4)


def test_a_point_added_later_is_tried_next(load):
    study = _study()
    for _ in range(4):
        ask(study, load("random"))
    _, config = ask(study, load("random", '[[points]]\n"train.epochs" = 7\n'))
    assert config.train.epochs == 7
    _, config = ask(study, load("random", '[[points]]\n"train.epochs" = 7\n'))
    assert config.train.epochs == 100


def test_list_values_can_be_searched_without_losing_their_type(load):
    from mtl.search import Choice

    choice, study = Choice((["sst"], ["sst", "para"])), _study()
    trial = study.ask()
    assert choice.suggest(trial, "tasks") in choice.values
    assert isinstance(trial.params["tasks"], str)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("none", "NopPruner"), ("median", "MedianPruner"), ("hyperband", "HyperbandPruner"),
        ("successive_halving", "SuccessiveHalvingPruner"),
    ],
)  # fmt: skip
def test_every_pruner_is_the_one_it_says(load, name, kind):
    pruner = make_pruner(load("random").model_copy(update={"pruner": name}))
    assert type(pruner).__name__ == kind
