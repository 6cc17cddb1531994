"""The same trials with further seeds: which, in which order, and what the tables say of them.

Room: mtl/trials.
"""

import json
import statistics

import optuna
import pytest

from minbert import InputError
from mtl.study.load import load_study
from mtl.trials.leaderboard import grouped, leaderboard, replicated
from mtl.trials.replicates import missing
from mtl.trials.sampling import ask, resume
from mtl.trials.tally import Tally
from support.study_runs import Study

FILE = """
sampler = "tpe"
trials = 3
replicates = 2
[config]
"train.seed" = 7
[search]
"lora.rank" = [1, 2, 4]
[[points]]
label = "no LoRA"
"lora.rank" = 0
[[points]]
"lora.rank" = 4
"""


@pytest.fixture
def load(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def write_and_load(text=FILE, **options):
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return load_study(str(path), **options)

    return write_and_load


def run(study, spec, scores=None):
    """Ask and tell until nothing is missing; return the configurations."""
    configs, tally = [], Tally(study)
    while missing(study, spec):
        tally.update()
        left = missing(study, spec, tally)
        assert left == missing(study, spec)
        trial, config = ask(study, spec, tally)
        assert missing(study, spec) == left - 1
        study.tell(trial, scores[trial.number] if scores else config.lora.rank)
        configs.append(config)
    return configs


def test_every_trial_is_repeated_after_all_of_them(load):
    spec, study = load(), optuna.create_study(direction="maximize")
    configs = run(study, spec)
    assert len(configs) == spec.total == 6
    assert [config.train.seed for config in configs] == [7, 7, 7, 8, 8, 8]
    ranks = [config.lora.rank for config in configs]
    assert ranks[:2] == [0, 4] and ranks[3:] == ranks[:3]
    trials = study.get_trials()
    assert [t.user_attrs.get("replicate_of") for t in trials] == [None, None, None, 0, 1, 2]
    assert [t.user_attrs.get("label") for t in trials] == ["no LoRA", None, None] * 2
    assert [t.params for t in trials[3:]] == [t.params for t in trials[:3]]


def test_more_seeds_and_more_trials_can_be_added_later(load):
    study = optuna.create_study(direction="maximize")
    run(study, load(replicates=1))
    assert missing(study, load(replicates=3)) == 6
    more = run(study, load(replicates=3))
    assert [config.train.seed for config in more] == [8, 8, 8, 9, 9, 9]
    assert missing(study, load()) == missing(study, load(replicates=1)) == 0
    wider = load(replicates=2, trials=4)
    assert missing(study, wider) == 2
    assert [config.train.seed for config in run(study, wider)] == [7, 8]


def test_a_replicate_that_was_half_asked_is_the_same_trial(load):
    spec, whole, broken = load(), *(optuna.create_study(direction="maximize") for _ in range(2))
    for number in range(spec.total):
        trial, config = ask(whole, spec)
        whole.tell(trial, 1.0)
        broken.ask()  # and the dispatcher is killed
        again, config_again = resume(broken, spec, number)
        assert config_again == config
        broken.tell(again, 1.0)
    assert [t.user_attrs for t in broken.get_trials()] == [t.user_attrs for t in whole.get_trials()]


@pytest.mark.parametrize("more", ['[[points]]\n"train.seed" = 1\n', '[search]\n"train.seed" = [1]'])
def test_seeds_cannot_be_given_twice(load, more):
    text = 'replicates = 2\n[[points]]\n"lora.rank" = 1\n' + more
    with pytest.raises(InputError, match="mine.toml:1: replicates set train.seed"):
        load(text)


@pytest.mark.parametrize("label", ["3", '""', '"two\\nlines"'])
def test_labels_are_lines_of_text(load, label):
    with pytest.raises(InputError, match="mine.toml:2: label = "):
        load(f"[[points]]\nlabel = {label}\n")


def test_groups_have_mean_and_deviation(load):
    spec, study = load(), optuna.create_study(direction="maximize")
    scores = [0.5, 0.9, 0.6, 0.7, 0.2, 0.8]
    while missing(study, spec):
        trial, _ = ask(study, spec)
        known = {"sst_accuracy": 0.1, "para_accuracy": 0.2, "sts_pearson": 0.3 * trial.number}
        trial.set_user_attr("scores", known)
        trial.set_user_attr("minutes", 1.0)
        study.tell(trial, scores[trial.number])
    rows = leaderboard(study)
    assert replicated(rows) and [row["number"] for row in rows][:2] == [1, 5]
    groups = grouped(rows)
    assert [group["numbers"] for group in groups] == [[2, 5], [0, 3], [1, 4]]
    assert groups[0]["score"] == pytest.approx((0.7, statistics.stdev([0.6, 0.8])))
    assert groups[1]["setting"] == "no LoRA" and groups[2]["setting"] == "r=4"
    assert groups[2]["sts_pearson"] == pytest.approx((0.75, statistics.stdev([0.3, 1.2])))


def test_a_study_with_replicates_from_the_command_line(tmp_path, home):
    """One setting with two seeds, then a third: only that is trained, and the table says so."""
    study = Study(tmp_path / "study", home, epochs=1, search='"lora.rank" = [2]',
                  sampler="points", more='[[points]]\nlabel = "two"\n"lora.rank" = 2')  # fmt: skip
    code, _ = study.run_here("--replicates", "2", "--jobs", "1")
    assert code == 0 and len(study.trials()) == 2
    code, out = study.run_here("--replicates", "3", "--jobs", "1")
    assert code == 0 and "trial 2 started: two seed=11713" in out
    assert "trial 1 started" not in out
    scores = [value for _, _, value in study.trials()]
    assert len(set(scores)) > 1
    told = f"{statistics.mean(scores):.3f} ± {statistics.stdev(scores):.3f}"
    assert told in out and "mean ± standard deviation over seeds" in out
    (name,) = study.query("mlflow.db", "select name from runs where name like 'trial 2%'")
    assert name == ("trial 2 · two seed=11713",)
    estimates = study.attribute(0, "estimates")
    for metric in ("score", "sst_accuracy", "sts_pearson", "sts_mse"):
        assert estimates[metric]["low"] <= estimates[metric]["value"] <= estimates[metric]["high"]
    assert study.attribute(0, "model_bytes") < study.attribute(0, "checkpoint_bytes")
    _, said = study.mtl("plan", str(study.file), "--replicates", "3", "--json")
    shown = json.loads(said)
    assert (shown["trials"], shown["replicates"], shown["points"]) == (3, 3, 1)
