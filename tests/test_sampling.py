"""Which values a trial gets: points first, then the sampler, and the same after any restart.

Room: mtl/trials.
"""

import optuna
import pytest

from mtl.study.load import load_study
from mtl.trials.pruning import make_pruner
from mtl.trials.sampling import PointsFirst, ask, make_sampler, resume
from mtl.trials.tally import Tally

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
    def write_and_load(sampler: str, more: str = "", text: str = STUDY):
        path = tmp_path / "mine.toml"
        path.write_text(text.format(sampler=sampler) + more)
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
        again, same = resume(broken, spec, number)
        assert (again.number, again.params, same) == (number, trial.params, config)
        broken.tell(again, _score(same))


def test_points_come_first_and_their_other_keys_are_fixed(load):
    spec, study = load("tpe"), _study()
    first, config = ask(study, spec)
    assert first.params == {"lora.rank": 4, "lora.alpha": 8.0, "train.batch_size": 8}
    second, config = ask(study, spec)
    assert (config.lora.rank, config.train.lr) == (3, 0.1)
    third, config = ask(study, spec)
    assert set(third.params) == set(spec.search) and config.lora.rank in (1, 2, 4)
    # What points alone vary is a parameter of every trial; outside the search it can be none.
    rates = [trial.params["train.lr"] for trial in study.trials]
    assert rates == [1e-5, 0.1, 1e-5]
    assert set(study.trials[1].params) == {"lora.alpha", "train.batch_size", "train.lr"}
    assert [trial.user_attrs.get("lora.rank") for trial in study.trials] == [None, 3, None]


def test_a_point_added_later_is_tried_next(load):
    study = _study()
    for _ in range(4):
        ask(study, load("random"))
    _, config = ask(study, load("random", '[[points]]\n"train.epochs" = 7\n'))
    assert config.train.epochs == 7
    _, config = ask(study, load("random", '[[points]]\n"train.epochs" = 7\n'))
    assert config.train.epochs == 100


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes"])
def test_what_points_vary_is_nothing_that_a_sampler_draws(load, sampler):
    """Beyond the random start of TPE: the same values as without a point's parameter."""
    more = '[[points]]\n"smart.lambda" = 0.5\n"pals.kind" = "pals-shared"\n'
    studies = _study(), _study()
    for number in range(14):
        for study, hidden in zip(studies, (False, True), strict=True):
            spec = load(sampler, more)
            if hidden:
                spec.__dict__["point_keys"] = {}
            trial, config = ask(study, spec)
            study.tell(trial, _score(config) + (number == 2))
    shown, bare = ([t.params for t in study.trials] for study in studies)
    assert [{k: p[k] for k in q} for p, q in zip(shown, bare, strict=True)] == bare
    assert [p["pals.kind"] for p in shown].count("shared") == 1
    assert [p["smart.lambda"] for p in shown].count(0.5) == 1


def test_points_that_are_added_later_widen_what_their_keys_can_be(load, tmp_path):
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db", direction="maximize")
    point = '[[points]]\n"train.epochs" = {}\n"pals.kind" = "{}"\n"schedule.tasks" = ["sst"]\n'
    more = ""
    for added in ((2, "pals"), (700, "mixed"), (1, "none")):
        more += point.format(*added)
        for _ in range(3 if len(study.trials) == 0 else 1):  # the two points of the file come first
            ask(study, load("random", more))
    found = [(t.params["train.epochs"], t.params["pals.kind"]) for t in study.trials[2:]]
    assert found == [(2, "pals"), (700, "mixed"), (1, "none")]
    # A list is none of Optuna's parameters.
    assert [t.user_attrs["schedule.tasks"] for t in study.trials[1:3]] == [
        ["sst", "para", "sts"], ["sst"],
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", ["gp", "cmaes"])
def test_a_point_outside_of_the_search_leaves_the_search_whole(load, sampler):
    """One trial without a parameter would have these samplers draw it at random from then on."""
    spec = load(sampler)  # its second point has a rank that is not searched
    study = _study()
    for _ in range(14):
        trial, config = ask(study, spec)
        study.tell(trial, _score(config))
    space = {key: search.distribution() for key, search in spec.search.items()}
    sampler = PointsFirst(make_sampler(sampler, 0), space, {}, None)
    within = sampler._compared(study)
    assert [trial.number for trial in within.get_trials()] == [0, *range(2, 14)]
    searched = set(sampler._relative(within, study.trials[-1]))
    numbers = {"lora.alpha", "train.batch_size"}
    assert searched == (numbers if spec.sampler == "cmaes" else {*numbers, "lora.rank"})


def test_cmaes_without_its_pickle_is_where_optuna_s_is():
    from mtl.trials.cmaes import ReplayedCmaEs

    study = _study()
    for seed in range(40):
        study.sampler = optuna.samplers.CmaEsSampler(seed=seed)
        trial = study.ask()
        x, y = trial.suggest_float("x", -5, 5), trial.suggest_int("y", 1, 9)
        study.tell(trial, -((x - 1) ** 2) - abs(y - 3))
    complete = study.get_trials()
    theirs = study.sampler._restore_optimizer(complete)  # unpickles what Optuna wrote here
    ours = ReplayedCmaEs(seed=0)
    assert ours._restore_optimizer(complete) is None
    space = optuna.search_space.intersection_search_space(complete)
    trans = optuna._transform._SearchSpaceTransform(space, transform_0_1=True)
    replayed = ours._init_optimizer(trans, study.direction)
    assert replayed.generation == theirs.generation >= 4
    assert replayed._mean == pytest.approx(theirs._mean)
    assert pytest.approx(theirs._C) == replayed._C


def test_cmaes_writes_no_state(load):
    spec, study = load("cmaes"), _study()
    for _ in range(40):
        trial, config = ask(study, spec)
        study.tell(trial, _score(config))
    names = {name for trial in study.trials for name in trial.system_attrs}
    assert "cma:generation" in names and not any("optimizer" in name for name in names)


def test_cmaes_says_what_it_draws_at_random(load):
    assert "cmaes draws lora.rank at random" in load("cmaes").notes[0]
    assert load("tpe").notes == load("gp").notes == []
    only = '[search]\n"lora.rank" = [1, 2]\n'
    assert "every searched key" in load("cmaes", only, STUDY.partition("[search]")[0]).notes[0]


def test_list_values_can_be_searched_without_losing_their_type(load):
    from mtl.study.search import Choice

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
