"""What MLflow keeps of one training, seen from the worker that trains it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from . import metric_keys as keys
from .outbox import Outbox

if TYPE_CHECKING:
    from minbert import Config, EpochReport, Estimate, StepReport

_EVERY = 10  # steps between points


class Recorded(NamedTuple):
    """What a finished training has on its run.

    Attributes:
        best: the best epoch, on the whole dev sets.
        estimates: of its metrics, with intervals.
        model_bytes: size of the weights that were kept.
        trainable: parameters.
        pictures: PNG files among the artifacts.
    """

    best: EpochReport
    estimates: dict[str, Estimate]
    model_bytes: int
    trainable: int
    pictures: list[Path]


class RunRecorder:
    """An observer of one training: records its steps and evaluations for its run.

    Nothing that is recorded depends on what this object has seen before, but throughput, which no
    two runs share anyway: a training that was killed and resumed leaves the points of one that
    was not. Every point is in the outbox before the call returns, since the training may be killed
    after any step and says again only what follows its last checkpoint; a step that comes again
    is dropped.

    Metrics during the training, all by global training step:
        train/batch_loss: loss of the batch of every tenth step, of whichever task it is.
        train/loss, train/loss_<task>: at each evaluation, the mean over all steps of the task since
            the last evaluation; train/loss is the mean of the tasks' means.
        system/...: what the process uses, every ten steps.
        train/lr, train/tokens_per_second: every ten steps and at each evaluation.
        dev/<score>, dev/score, best/score: at each evaluation; with it train/epoch, train/seconds
            and dev/seconds.

    At its end, once: final/... of the best epoch and what is kept of it, parameters/...

    Args:
        outbox: of the run; nothing else may record in it at the same time.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._seen = outbox.points()
        self._tokens = 0
        self._seconds = 0.0
        self._usage = ProcessUsage()

    def on_step(self, report: StepReport) -> None:
        """Take note of a training step."""
        self._tokens += report.tokens
        self._seconds += report.seconds
        if report.step % _EVERY:
            return
        points = {keys.BATCH_LOSS: report.loss, keys.LR: report.lr, **self._usage.read()}
        if self._seconds > 0:
            points[keys.TOKENS_PER_SECOND] = self._tokens / self._seconds
        self._tokens, self._seconds = 0, 0.0
        self._log(report.step, points)

    def on_epoch(self, report: EpochReport) -> None:
        """Take note of an evaluation."""
        points = {keys.dev(name): value for name, value in report.scores.items()}
        points |= {keys.task_loss(task): loss for task, loss in report.losses.items()}
        if report.losses:
            points[keys.LOSS] = sum(report.losses.values()) / len(report.losses)
        points |= {
            keys.BEST_SCORE: report.best_score,
            keys.LR: report.lr,
            keys.TOKENS_PER_SECOND: report.tokens_per_second,
            keys.EPOCH: report.epoch,
            keys.TRAIN_SECONDS: report.train_seconds,
            keys.EVAL_SECONDS: report.eval_seconds,
        }
        self._log(report.step, points)

    def finish(
        self,
        config: Config,
        checkpoint_dir: Path,
        cache_dir: Path | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Recorded:
        """Put the best epoch's artifacts and scores on the run.

        Args:
            checkpoint_dir: where the training keeps its checkpoints.
            cache_dir: where pulled backbones lie.
            should_stop: asked while the best epoch is evaluated once more, if it is.

        Returns:
            What of it the dispatcher wants to know. The pictures are in the outbox.

        Raises:
            TrainingStopped: ``should_stop`` said yes; nothing is lost.
        """
        from minbert import count_parameters, estimates, evaluate_best, save_model

        from ..artifacts.training import write_config, write_estimates, write_report

        work_dir = self._outbox.files
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        best = evaluate_best(config, checkpoint_dir, cache_dir, should_stop)
        sure = estimates(best.predictions)
        pictures = write_report(best, work_dir)
        write_estimates(sure, work_dir / "estimates.csv")
        write_config(config.to_keys(), work_dir / "config.toml")
        save_model(config, checkpoint_dir, work_dir / "model", cache_dir)
        size = sum(file.stat().st_size for file in (work_dir / "model").rglob("*.safetensors"))
        self._outbox.append("files", folder=work_dir.name)
        counts = count_parameters(config, cache_dir)
        points: dict[str, float] = {keys.TRAINABLE: counts.trainable, keys.TOTAL: counts.total}
        points |= {keys.final(name): given.value for name, given in sure.items()}
        score = sure["score"]
        points |= {keys.final("score_low"): score.low, keys.final("score_high"): score.high}
        points |= {keys.final("epoch"): best.epoch, keys.final("model_bytes"): size}
        step = best.step
        if config.train.eval_limit:  # until now, best/score was that of a part of the dev sets
            points[keys.BEST_SCORE], step = best.best_score, best.total_steps + 1
        self._log(step, points)
        return Recorded(best, sure, size, counts.trainable, pictures)

    def _log(self, step: int, points: Mapping[str, float]) -> None:
        """Record the points of one step that were not recorded before."""
        new = {key: float(value) for key, value in points.items() if (key, step) not in self._seen}
        if new:
            self._outbox.append("metrics", step=step, values=new)
            self._seen.update((key, step) for key in new)


class ProcessUsage:
    """Reads what this process uses. MLflow's own monitor reads the whole machine, by a thread that
    writes on its own, so that a resumed training would have points of two lives at one step."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent()  # the first call only starts the clock

    def read(self) -> dict[str, float]:
        """Return processor use since the last call (percent of one core), memory now and, with
        CUDA, the most that was taken on the GPU so far (megabytes)."""
        import torch

        used = {
            "system/process_cpu_percentage": self._process.cpu_percent(),
            "system/process_memory_megabytes": self._process.memory_info().rss / 1e6,
        }
        if torch.cuda.is_initialized():
            used["system/gpu_memory_peak_megabytes"] = torch.cuda.max_memory_allocated() / 1e6
        return used
