"""Who ends trials early, what it is told of a trial's evaluations, and what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna

from ..study.spec import StudySpec
from .attributes import attributes_of, trial_of

if TYPE_CHECKING:
    from optuna.trial import Trial


def should_prune(trial: Trial, epoch: int, score: float, epochs: int) -> bool:
    """Report a score and ask the pruner. A resumed training says again what it said after its last
    checkpoint: what was answered then is answered now.

    Args:
        epochs: of the whole training: after the last there is nothing left to save.
    """
    frozen = trial_of(trial.study, trial.number)
    known = frozen.intermediate_values
    if attributes_of(frozen).get("pruned_at") == epoch:
        return True
    if epoch not in known:
        trial.report(score, epoch)
    elif epoch < max(known):
        return False
    if epoch >= epochs or not trial.should_prune():
        return False
    trial.set_user_attr("pruned_at", epoch)
    return True


def make_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Make the study's pruner. Its resource is the epoch, counted in evaluations."""
    from optuna import pruners

    configs = [spec.config_of({})]
    configs += [spec.config_of({"train.epochs": epochs}) for epochs in _searched_epochs(spec)]
    first = min(config.train.eval_every for config in configs)
    last = max(config.train.epochs for config in configs)
    if spec.pruner == "median":
        return pruners.MedianPruner()
    if spec.pruner == "hyperband":
        return pruners.HyperbandPruner(min_resource=min(first, last), max_resource=last)
    if spec.pruner == "successive_halving":
        return pruners.SuccessiveHalvingPruner(min_resource=min(first, last))
    return pruners.NopPruner()


def _searched_epochs(spec: StudySpec) -> list[int]:
    search = spec.search.get("train.epochs")
    epochs = list(search.corners()) if search else []
    return epochs + [point["train.epochs"] for point in spec.points if "train.epochs" in point]
