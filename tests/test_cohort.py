"""Trainings that share passes: each is the training that it would be alone.

Room: minbert/training.
"""

import math
import threading

import numpy as np
import pytest
import torch

from minbert import DivergedError, TrainingStopped, load_best, train
from minbert.config import Config
from minbert.training.cohort import Cohort
from minbert.training.trainer import Trainer
from support import small

SHORT = {"train.epochs": 1, "train.steps_per_epoch": 9}
LLL = {"train.mode": "last-linear-layer", "train.epochs": 3, "train.steps_per_epoch": 34}
MEMBERS = [
    {"lora.rank": 1, "lora.alpha": 8.0, "train.lr": 3e-3, "train.seed": 1},
    {"lora.rank": 4, "lora.alpha": 2.0, "train.grad_clip": 0.1, "train.batch_size": 7},
    {"lora.rank": 2, "lora.alpha": 1.0, "train.epochs": 2, "schedule.policy": "round-robin"},
    {"lora.rank": 0, "train.dropout": 0.1, "train.warmup_steps": 20},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("cohort"))


def config(folder, **keys) -> Config:
    return small.config(folder, **LLL | {"train.lr": 1e-3} | keys)


class Member(threading.Thread):
    """A training in a thread of its own; `steps`, `reports` and what it raised."""

    def __init__(self, folder, keys, cohort=None, checkpoints=None, stop_at=None):
        super().__init__(daemon=True)
        self.steps, self.reports, self.raised = [], [], None
        self._given = config(folder, **keys), folder / "cache", cohort, checkpoints, stop_at

    def run(self):
        given, cache, cohort, checkpoints, stop_at = self._given
        try:
            for report in train(
                given, cache_dir=cache, checkpoint_dir=checkpoints, on_step=self.steps.append,
                should_stop=lambda: len(self.steps) == stop_at, cohort=cohort,
            ):  # fmt: skip
                self.reports.append(report)
        except (DivergedError, TrainingStopped) as error:
            self.raised = error

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]

    @property
    def scores(self) -> list[dict]:
        return [report.scores for report in self.reports]


def together(*members: Member) -> tuple[Member, ...]:
    for member in members:
        member.start()
    for member in members:
        member.join(120)
        assert not member.is_alive()
    return members


@pytest.fixture(scope="module")
def alone(folder, tmp_path_factory):
    """Each training by itself, with its checkpoints."""
    base = tmp_path_factory.mktemp("alone")
    members = []
    for number, keys in enumerate(MEMBERS):
        members += together(Member(folder, keys, checkpoints=base / str(number)))
    return members


def agree(one: Member, other: Member) -> None:
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4, atol=1e-6)
    assert [step.task for step in one.steps] == [step.task for step in other.steps]
    for mine, theirs in zip(one.scores, other.scores, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_each_is_the_training_that_it_would_be_alone(folder, alone):
    """Ranks, alphas, rates, batch sizes, schedules, seeds and lengths differ; a hundred steps."""
    cohort = Cohort(4)
    members = together(*(Member(folder, keys, cohort) for keys in MEMBERS))
    assert [len(member.steps) for member in members] == [102, 102, 68, 102]
    for member, wanted in zip(members, alone, strict=True):
        agree(member, wanted)


def test_a_cohort_of_one_is_a_training_to_the_bit(folder, alone):
    for keys, wanted in list(zip(MEMBERS, alone, strict=True))[::3]:
        (member,) = together(Member(folder, keys, Cohort(1)))
        assert member.losses == wanted.losses and member.scores == wanted.scores


def test_seeds_of_one_recipe_are_trainings_apart(folder):
    seeds = [MEMBERS[0] | {"train.seed": seed, "train.epochs": 1} for seed in (3, 4, 5)]
    cohort = Cohort(3)
    members = together(*(Member(folder, keys, cohort) for keys in seeds))
    singles = [together(Member(folder, keys))[0] for keys in seeds]
    for member, wanted in zip(members, singles, strict=True):
        agree(member, wanted)
    assert len({tuple(member.losses) for member in members}) == 3


# ---- gradients of one step


def gradients(folder, cohort_keys, spoil=None) -> list[dict[str, torch.Tensor]]:
    """Take the first pass of some trainings together; return each one's gradients.

    Args:
        spoil: is given the last training before.
    """
    cohort, found = Cohort(len(cohort_keys)), []
    trainers = [Trainer(config(folder, **keys), folder / "cache", cohort=cohort)
                for keys in cohort_keys]  # fmt: skip
    if spoil is not None:
        spoil(trainers[-1])
    cohort._training |= {each.steps for each in trainers}  # nobody begins before the others
    results = {}

    def first_step(number, trainer):
        results[number] = trainer.steps._gradients("sst", np.arange(5 + number))

    threads = [threading.Thread(target=first_step, args=each) for each in enumerate(trainers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for trainer in trainers:
        own = trainer.trained.items()
        found.append({name: p.grad.clone() for name, p in own if p.grad is not None})
    return found


def test_gradients_are_those_of_a_training_alone(folder):
    found = gradients(folder, MEMBERS)
    for number, mine in enumerate(found):
        trainer = Trainer(config(folder, **MEMBERS[number]), folder / "cache")
        trainer.steps._gradients("sst", np.arange(5 + number))
        for name, gradient in mine.items():
            wanted = trainer.trained[name].grad
            torch.testing.assert_close(gradient, wanted, atol=1e-5, rtol=1e-5)


def other_labels(trainer):
    trainer.corpus.train["sst"].labels = 4 - np.asarray(trainer.corpus.train["sst"].labels)


def a_loss_that_is_no_number(trainer):
    trainer.model.head("sst").bias.data.fill_(math.nan)


def matrices_that_overflow(trainer):
    for name, p in trainer.trained.items():
        if name.endswith((".a", ".b")):
            p.data.fill_(1e30)


@pytest.mark.parametrize(
    "spoil", [other_labels, a_loss_that_is_no_number, matrices_that_overflow]
)
def test_nothing_of_one_reaches_another_by_a_bit(folder, spoil):
    members = [MEMBERS[0], MEMBERS[1], MEMBERS[2]]
    *others, last = gradients(folder, members)
    *same, spoilt = gradients(folder, members, spoil)
    for mine, theirs in zip(others, same, strict=True):
        assert all(torch.equal(gradient, theirs[name]) for name, gradient in mine.items())
    assert any(not torch.equal(gradient, spoilt[name]) for name, gradient in last.items())


# ---- coming and going


def test_one_that_diverges_leaves_the_others_as_they_are(folder, alone):
    cohort = Cohort(3)
    wild = MEMBERS[0] | {"train.lr": 1e20, "train.seed": 9}
    *calm, ended = together(
        Member(folder, MEMBERS[0], cohort), Member(folder, MEMBERS[1], cohort),
        Member(folder, wild, cohort),
    )  # fmt: skip
    assert isinstance(ended.raised, DivergedError) and len(ended.steps) < 102
    for member, wanted in zip(calm, alone, strict=False):
        agree(member, wanted)


@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (True, True)])
def test_a_checkpoint_goes_on_alone_and_in_a_cohort(folder, tmp_path, alone, first, then):
    """In whatever company: every point once, and the best epoch is the best epoch."""
    keys = MEMBERS[1]
    partner = MEMBERS[0]
    begun = Member(folder, keys, *_company(folder, first), tmp_path, stop_at=47)
    with_others = [Member(folder, partner, begun._given[2])] if first else []
    together(begun, *with_others)
    assert isinstance(begun.raised, TrainingStopped) and len(begun.steps) == 47
    rest = Member(folder, keys, *_company(folder, then), tmp_path)
    with_others = [Member(folder, MEMBERS[2], rest._given[2])] if then else []
    together(rest, *with_others)
    steps = begun.steps + rest.steps
    assert [step.step for step in steps] == list(range(1, 103))
    np.testing.assert_allclose([s.loss for s in steps], alone[1].losses, rtol=1e-4, atol=1e-6)
    best, wanted = load_best(tmp_path), max(alone[1].reports, key=lambda r: r.scores["score"])
    assert best.epoch == wanted.epoch and best.scores == pytest.approx(wanted.scores, abs=1e-4)


def _company(folder, wanted):
    return (Cohort(2),) if wanted else (None,)


def test_who_trains_alone_is_told_why(folder):
    cohort = Cohort(2)
    assert cohort.takes(config(folder, **MEMBERS[0])) is None
    for keys, reason in (
        ({"train.mode": "full-model"}, "train.mode"),
        ({"smart.lambda": 0.1}, "smart.lambda"),
        ({"pals.kind": "shared"}, "pals.kind"),
    ):
        assert reason in cohort.takes(config(folder, **keys))
        member, partner = together(
            Member(folder, SHORT | keys, cohort), Member(folder, MEMBERS[0] | SHORT, cohort)
        )
        assert len(member.steps) == len(partner.steps) == 9


def test_trainings_on_other_weights_share_no_pass(folder, tmp_path):
    """Side by side in one cohort, on two backbones and in two precisions."""
    other = small.folder(tmp_path, seed=7)
    keys = [SHORT | MEMBERS[0], SHORT | MEMBERS[1] | {"train.precision": "bfloat16"}]
    cohort = Cohort(3)
    members = [Member(each, k, cohort) for each, k in zip((folder, folder), keys, strict=True)]
    members.append(Member(other, keys[0], cohort))
    together(*members)
    singles = [Member(folder, keys[0]), Member(folder, keys[1]), Member(other, keys[0])]
    for member, single in zip(members, singles, strict=True):
        agree(member, *together(single))
    assert members[0].losses != members[2].losses


def test_what_a_pass_raises_is_raised_in_all_of_it(folder, monkeypatch):
    def fail(taken):
        raise MemoryError("no memory")

    monkeypatch.setattr("minbert.training.cohort._pass", fail)
    cohort, raised = Cohort(2), []

    def run(keys):
        with pytest.raises(MemoryError):
            list(train(config(folder, **keys), cache_dir=folder / "cache", cohort=cohort))
        raised.append(keys)

    threads = [threading.Thread(target=run, args=(keys,)) for keys in MEMBERS[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(raised) == 2
