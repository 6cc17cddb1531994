"""SMART: its divergences, its gradient, its ball, and that lambda 0 is plain training.

Room: minbert/training.
"""

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence

from minbert import Config, InputError
from minbert.config import SmartConfig
from minbert.model.dropout import Dropout
from minbert.multitask import task_loss
from minbert.packing.pack import pack
from minbert.tasks.builtin import TASKS, get_task
from minbert.training.build import prepare_model
from minbert.training.objective import TaskObjective, divergence
from minbert.training.smart import Smart, project
from minbert.training.trainer import Trainer
from support import small
from support.small import config

SST, PARA, STS = TASKS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small.folder(tmp_path_factory.mktemp("smart"))


@pytest.fixture
def model(folder):
    made = prepare_model(config(folder), folder / "cache", torch.device("cpu"))
    return made.double()


def smart(model, **keys) -> Smart:
    settings = SmartConfig(**({"lambda": 1.0, "alpha": 0.1} | keys))
    return Smart(settings, model, seed=3, device=torch.device("cpu"))


def batch():
    return pack([torch.arange(5, 5 + n).numpy() for n in (4, 9, 4)], [2, 4, 4], ["sst"] * 3)


def losses(given: Smart, packed, task, dropout):
    """Return what SMART makes of a batch of a task: its outputs, and what is added."""
    labels = torch.zeros(len(packed.cls_positions))
    return given.losses(packed, TaskObjective(given._model, packed, task, labels), dropout)


# ---- divergences, against torch.distributions


def test_sentiment_is_symmetrised_kl_over_the_classes():
    p, q = torch.randn(6, 5), torch.randn(6, 5)
    one, two = Categorical(logits=p), Categorical(logits=q)
    wanted = (kl_divergence(one, two) + kl_divergence(two, one)).mean()
    torch.testing.assert_close(divergence(SST, p, q), wanted)


def test_paraphrase_is_symmetrised_kl_between_bernoullis():
    p, q = torch.randn(6, 1), torch.randn(6, 1)
    one, two = Bernoulli(logits=p[:, 0]), Bernoulli(logits=q[:, 0])
    wanted = (kl_divergence(one, two) + kl_divergence(two, one)).mean()
    torch.testing.assert_close(divergence(PARA, p, q), wanted)
    assert wanted > 0.01  # not identically zero, as over a softmax of one logit


def test_similarity_is_squared_error():
    p, q = torch.randn(6, 1), torch.randn(6, 1)
    torch.testing.assert_close(divergence(STS, p, q), ((p - q) ** 2).mean())


# ---- the ball


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("mode", ["noise", "adversarial"])
@pytest.mark.parametrize("alpha", [1e-5, 0.3])
def test_the_perturbation_never_leaves_the_ball(model, norm, mode, alpha):
    given = smart(model, alpha=alpha, norm=norm, mode=mode, steps=4, step_size=10.0)
    packed = batch()
    embedded = model.encoder.embeddings(packed, None).detach()
    for task in TASKS:
        outputs = model.outputs(embedded, packed, task).detach()
        objective = TaskObjective(model, packed, task, torch.zeros(3))
        delta = given.perturbation(
            embedded, outputs, lambda x, t=task: model.outputs(x, packed, t), packed, objective
        )
        bounds = [*packed.cls_positions.tolist(), packed.tokens]
        for start, stop in zip(bounds, bounds[1:], strict=False):
            order = torch.inf if norm == "linf" else 2
            size = torch.linalg.vector_norm(delta[start:stop], order)
            assert 0 < size <= alpha


def test_projection_leaves_what_is_inside():
    packed = batch()
    inside = torch.full((packed.tokens, 3), 1e-3)
    assert torch.equal(project(inside, packed, 0.5, "linf"), inside)
    torch.testing.assert_close(project(inside, packed, 0.5, "l2"), inside, rtol=1e-5, atol=0)


# ---- the gradient, against finite differences


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_gradient_equals_finite_differences(model, task):
    """Of the regulariser, with dropout and a perturbation that is held still."""
    packed = batch()
    stream = torch.Generator().manual_seed(0)
    delta = 0.1 * torch.randn(packed.tokens, 16, generator=stream, dtype=torch.float64)

    def regulariser() -> torch.Tensor:
        given = smart(model, alpha=10.0, mode="noise")
        given.perturbation = lambda *_: delta
        _, extra = losses(given, packed, task, Dropout(7))
        return extra

    model.zero_grad()
    regulariser().backward()
    for name in ("encoder.layers.0.qkv.weight", f"heads.{task.name}.weight"):
        parameter = dict(model.named_parameters())[name]
        with torch.no_grad():
            for place in [(0, 3), (0, 11)]:
                kept = parameter[place].clone()
                parameter[place] = kept + 1e-5
                above = regulariser().item()
                parameter[place] = kept - 1e-5
                below = regulariser().item()
                parameter[place] = kept
                measured = (above - below) / 2e-5
                assert parameter.grad[place].item() == pytest.approx(measured, rel=2e-3, abs=1e-9)


def test_ascent_finds_more_than_noise_of_the_same_size(model):
    packed = batch()
    embedded = model.encoder.embeddings(packed, None).detach()
    for task in TASKS:
        found = {}
        for mode in ("noise", "adversarial"):
            outputs = model.outputs(embedded, packed, task).detach()
            head = lambda x, t=task: model.outputs(x, packed, t)  # noqa: E731
            objective = TaskObjective(model, packed, task, torch.zeros(3))
            sizes = []
            for seed in range(5):
                given = smart(model, alpha=0.05, norm="l2", mode=mode, steps=3, step_size=0.05)
                given.stream.manual_seed(seed)
                delta = given.perturbation(embedded, outputs, head, packed, objective)
                sizes.append(divergence(task, head(embedded + delta), outputs).item())
            found[mode] = np.mean(sizes)
        assert found["adversarial"] > 2 * found["noise"], task.name


def test_both_passes_see_one_dropout_mask(model):
    """Without a perturbation the two passes are equal, dropout and all."""
    given = smart(model, mode="noise")
    given.perturbation = lambda embedded, *_: torch.zeros_like(embedded)
    outputs, extra = losses(given, batch(), SST, Dropout(1))
    assert extra.item() == 0.0
    other, _ = losses(given, batch(), SST, Dropout(2))
    assert not torch.equal(outputs, other)  # the masks were real


# ---- in training


def trained_by(folder, **keys):
    trainer = Trainer(config(folder, **keys), folder / "cache")
    losses = [trainer.take_step(t).loss for t in ("sst", "para", "sts", "sst", "para")]
    return trainer, losses


def test_lambda_zero_is_exactly_plain_training(folder):
    plain, losses = trained_by(folder)
    other, same = trained_by(folder, **{"smart.lambda": 0.0, "smart.alpha": 0.5})
    assert losses == same
    assert all(torch.equal(p, other.trained[n]) for n, p in plain.trained.items())


@pytest.mark.parametrize("mode", ["noise", "adversarial"])
def test_it_adds_to_the_loss_of_every_task(folder, mode):
    """At the first step of each task: same weights, same masks, a larger loss."""
    for task in ("sst", "para", "sts"):
        plain = Trainer(config(folder), folder / "cache").take_step(task).loss
        keys = {"smart.lambda": 2.0, "smart.alpha": 0.5, "smart.mode": mode}
        keys |= {"smart.step_size": 0.5}
        assert Trainer(config(folder, **keys), folder / "cache").take_step(task).loss > plain


@pytest.mark.parametrize("recipe", [{}, {"lora.rank": 2}, {"pals.kind": "pals"}])
def test_the_proximal_term_grows_with_the_distance_from_the_teacher(folder, recipe):
    """The teacher sees the same dropout masks, so only its weights make a difference."""
    trainer = Trainer(
        config(folder, **{"smart.proximal": 1.0, "smart.momentum": 0.9} | recipe), folder / "cache"
    )
    terms = []
    for _ in range(3):
        packed, _ = trainer.corpus.train["sts"].batch(np.arange(4))
        terms.append(losses(trainer.smart, packed, get_task("sts"), Dropout(4))[1].item())
        trainer.take_step("sts")
    assert terms[0] == 0.0 < terms[1]
    trainer.smart.after_step(trainer.trained)
    for name, weight in trainer.trained.items():
        trainer.smart.teacher[name].copy_(weight.detach())
    assert losses(trainer.smart, packed, get_task("sts"), Dropout(4))[1].item() == 0.0


def test_the_teacher_is_a_running_average(folder):
    trainer, _ = trained_by(folder, **{"smart.proximal": 0.1, "smart.momentum": 0.75})
    before = {n: t.clone() for n, t in trainer.smart.teacher.items()}
    trainer.take_step("sst")
    for name, weight in trainer.trained.items():
        wanted = 0.75 * before[name] + 0.25 * weight
        torch.testing.assert_close(trainer.smart.teacher[name], wanted.detach())


def test_bfloat16_is_refused_with_the_reason():
    with pytest.raises(InputError, match="drowns in bfloat16"):
        Config.from_keys({"smart.lambda": 1e-3, "train.precision": "bfloat16"})
    auto = Config.from_keys({"smart.lambda": 1e-3})
    assert auto.smart.weight == 1e-3 and auto.to_keys()["smart.lambda"] == 1e-3


def test_the_smallest_perturbation_is_felt(folder):
    """The paper's alpha of 1e-5 changes the outputs: it must not drown in rounding."""
    trainer = Trainer(config(folder, **{"smart.lambda": 1.0}), folder / "cache")
    dataset = trainer.corpus.train["sts"]
    packed, labels = dataset.batch(np.arange(4))
    outputs, extra = losses(trainer.smart, packed, get_task("sts"), trainer.dropout)
    assert extra.item() > 0
    assert task_loss(get_task("sts"), outputs, torch.from_numpy(labels)).item() > 0
