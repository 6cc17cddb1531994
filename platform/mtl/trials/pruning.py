"""What Optuna is told of a trial's evaluations, and what its pruner answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attributes import trial_of

if TYPE_CHECKING:
    from optuna.trial import Trial

    from ..trialfiles import TrialFiles


def is_hopeless(trial: Trial, epoch: int, score: float, epochs: int) -> bool:
    """Report a score and ask the pruner. A resumed training says again what it said after its last
    checkpoint: what was answered then is answered now.

    Args:
        epochs: of the whole training: after the last there is nothing left to save.
    """
    frozen = trial_of(trial.study, trial.number)
    known = frozen.intermediate_values
    if frozen.user_attrs.get("pruned_at") == epoch:
        return True
    if epoch not in known:
        trial.report(score, epoch)
    elif epoch < max(known):
        return False
    if epoch >= epochs or not trial.should_prune():
        return False
    trial.set_user_attr("pruned_at", epoch)
    return True


def report_deferred(trial: Trial, files: TrialFiles) -> None:
    """Report the scores that were kept in a file while the database was away."""
    if deferred := files.deferred(trial.number):
        known = trial_of(trial.study, trial.number).intermediate_values
        for epoch in sorted(deferred.keys() - known.keys()):
            trial.report(deferred[epoch], epoch)
