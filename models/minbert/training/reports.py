"""What a training says of itself: after each step, and at each evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..evaluation.predictions import TaskPredictions


@dataclass(frozen=True)
class StepReport:
    """One training step.

    Attributes:
        step: counted from 1 over the whole training.
        task: of the step's batch.
        loss: mean over the batch.
        lr: learning rate of the step.
        tokens: in the batch.
        seconds: that the step took.
    """

    step: int
    task: str
    loss: float
    lr: float
    tokens: int
    seconds: float


@dataclass
class Meter:
    """What was measured since the last evaluation, and the seconds of all steps."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    total_seconds: float = 0.0

    def add(self, report: StepReport) -> None:
        """Count a step in."""
        self.sums[report.task] = self.sums.get(report.task, 0.0) + report.loss
        self.counts[report.task] = self.counts.get(report.task, 0) + 1
        self.tokens += report.tokens
        self.seconds += report.seconds
        self.total_seconds += report.seconds

    def losses(self) -> dict[str, float]:
        """Return the mean loss of each task that had a step."""
        return {task: self.sums[task] / self.counts[task] for task in self.sums}


@dataclass(frozen=True, eq=False)
class EpochReport:
    """One evaluation on the dev sets.

    Attributes:
        epoch: counted from 1. step: steps taken until now. total_steps: of the whole training.
        scores: ``sst_accuracy``, ``para_accuracy``, ``sts_pearson`` and ``score``.
        best_score, best_epoch, is_best: of the evaluations until now.
        losses: mean training loss of each task since the evaluation before; a task that was not
            trained is missing.
        predictions: of each task, by short name.
        lr: learning rate of the last step.
        tokens_per_second: of training, since the evaluation before.
        train_seconds: of all steps until now. eval_seconds: of this evaluation.
        eval_examples: dev examples of all tasks.
    """

    epoch: int
    step: int
    total_steps: int
    scores: dict[str, float]
    best_score: float
    best_epoch: int
    is_best: bool
    losses: dict[str, float]
    predictions: dict[str, TaskPredictions]
    lr: float
    tokens_per_second: float
    train_seconds: float
    eval_seconds: float
    eval_examples: int
