"""One trial: configuration -> minbert.train -> events; what it records waits for MLflow nowhere."""

from __future__ import annotations

import errno
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from minbert.errors import DivergedError, InputError, TrainingStopped

from ..common.faults import explain
from ..common.masking import clean
from ..common.patience import Patience
from ..study.inputs import input_digest
from .commands import Orders
from .messages import (
    Cancel,
    Evaluated,
    Event,
    Failed,
    Finished,
    Noticed,
    Progress,
)

if TYPE_CHECKING:
    from minbert import Config, EpochReport, StepReport
    from minbert.training.cohort import Cohort

    from ..tracking.uploader import Uploader


LOCK_WAIT = 60.0
"""Seconds to wait for a worker of before: it notices within SILENCE that its dispatcher is gone,
and ends within `mtl.worker.commands.ORPHAN_GRACE` of that."""
_PROGRESS_EVERY = 0.25  # seconds

Send = Callable[[Event], None]
_first = threading.Lock()
"""Held by a trial that loads what all trials of this process use, once."""


class ChangedError(InputError):
    """The files of data or backbone are not those that the study has been begun with."""


def run_trial(orders: Orders, send: Send, cohort: Cohort | None = None) -> Event:
    """Train one trial to its end; return the event that ends it. Never raises.

    Trials of one process may run at the same time, each in a thread of its own.

    Args:
        send: hands an event to the dispatcher; from any thread.
        cohort: what the process' trials share, if it has several at a time.
    """
    from filelock import FileLock, Timeout

    job = orders.job
    folder = Path(job.checkpoint_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the folder: two workers must never write the same checkpoints.
        with FileLock(f"{folder}.lock").acquire(-1, cancel_check=_given_up(orders)):
            return _Trial(orders, send, cohort).run()
    except TrainingStopped:
        return orders.stopped()
    except Timeout:
        if orders.stopping.is_set():
            return orders.stopped()
        held = f"another process still trains trial {job.number}: it holds {folder}.lock"
        return Failed(job.number, f"{held}; end it and run the study again", blocked=True)
    except ChangedError as error:
        return Failed(job.number, clean(str(error)), bad_input=True, blocked=True)
    except InputError as error:
        blocked = explain(error, folder) is not None
        return Failed(job.number, clean(str(error)), bad_input=True, blocked=blocked)
    except DivergedError as error:
        return Failed(job.number, f"diverged: {error}")
    except Exception as error:  # noqa: BLE001  (the edge: whatever a trial raises ends it alone)
        if fault := explain(error, folder):
            return Failed(job.number, fault, blocked=True)
        line = " ".join(clean(str(error)).split())[:300]
        if _lacks_memory(error):
            return Failed(job.number, f"out of memory ({line})", memory=True)
        return Failed(job.number, f"{type(error).__name__}: {line}", clean(traceback.format_exc()))


def _given_up(orders: Orders) -> Callable[[], bool]:
    """Return what says that the lock is waited for no longer."""
    patience = Patience(LOCK_WAIT)
    return lambda: patience.over or orders.stopping.is_set()


def _lacks_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    # torch's allocator on processors raises a plain RuntimeError, as what a GPU is asked for beside
    # its allocator does: a context, a graph, a workspace of cuBLAS.
    signs = ("can't allocate memory", "CUDA error: out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


@cache
def _uploader(tracking_uri: str, artifact_root: str) -> Uploader:
    """The thread that sends this process' runs; one for all of its trials."""
    from ..tracking.sender import Sender
    from ..tracking.uploader import Uploader

    return Uploader(Sender(tracking_uri, Path(artifact_root)))


class _Trial:
    def __init__(self, orders: Orders, send: Send, cohort: Cohort | None) -> None:
        from minbert import Config

        from ..tracking.outbox import Outbox
        from ..tracking.run_recorder import RunRecorder

        self.job, self.orders, self.send, self.cohort = orders.job, orders, send, cohort
        self.config: Config = Config.from_keys(self.job.config)
        self.outbox = Outbox(Path(self.job.outbox))
        self.recorder = RunRecorder(self.outbox)
        with _first:  # a cache alone would let two that come together have one each
            self.uploader = _uploader(self.job.tracking_uri, self.job.artifact_root)
        self.pruned = False
        self.total_steps = 0
        self.minutes = 0.0
        self._said = 0.0
        self._last: StepReport | None = None

    def run(self) -> Event:
        self.uploader.watch(self.outbox)
        try:
            return self._train()
        finally:
            self.uploader.forget(self.outbox)

    def _train(self) -> Event:
        import minbert

        job = self.job
        self._check_inputs()
        cache, checkpoints = Path(job.cache_dir), Path(job.checkpoint_dir)
        with _first:
            self._load(cache)
        reports = minbert.train(
            self.config,
            cache_dir=cache,
            checkpoint_dir=checkpoints,
            on_step=self._on_step,
            on_evaluation=lambda: self._say_progress(evaluating=True),
            should_stop=self.orders.stopping.is_set,
            on_notice=self._notice,
            **self._company(),
        )
        for report in reports:
            if not self._on_epoch(report):
                # Checkpointed as it was before the evaluation, which then comes again.
                reports.throw(TrainingStopped("nobody has taken note of the evaluation"))
            if self.pruned:
                reports.close()
        if self.orders.stopping.is_set() and not self.pruned:
            # Trained to its end; the artifacts are for the next life.
            return self.orders.stopped()
        return self._finish(checkpoints)

    def _load(self, cache: Path) -> None:
        """Read data and weights, which trials share: two that read the same weights at the same
        time would have them twice."""
        import torch

        import minbert
        from minbert.backbone.weights import find_backbone, load_encoder_state

        torch.set_num_threads(self.job.threads)  # of this thread, and of those that begin later
        self.total_steps = minbert.total_steps(self.config, cache)
        load_encoder_state(find_backbone(self.config.backbone, cache))

    def _company(self) -> dict[str, Cohort]:
        """Say with whom it trains: the process' cohort, if it takes it."""
        if self.cohort is None:
            return {}
        if (alone := self.cohort.takes(self.config)) is not None:
            self._notice(f"it shares no passes with others: {alone}")
            return {}
        return {"cohort": self.cohort}

    def _notice(self, text: str) -> None:
        self.send(Noticed(self.job.number, text))

    def _check_inputs(self) -> None:
        """Make sure that data and backbone are the study's: scores on others would stand in the
        same table."""
        keys = self.config.to_keys()
        for key, digest in self.job.inputs.items():
            if input_digest(key, keys[key], Path(self.job.cache_dir)) != digest:
                raise ChangedError(
                    f"{key} {keys[key]}: its files have changed since the study began; put them "
                    "back, or run the study again: with these files it is another"
                )

    def _on_step(self, report: StepReport) -> None:
        self.recorder.on_step(report)
        self._last = report
        now = time.monotonic()
        if now - self._said >= _PROGRESS_EVERY:
            self._said = now
            self._say_progress()

    def _say_progress(self, evaluating: bool = False) -> None:
        last = self._last
        if last is None:  # resumed where an evaluation was interrupted
            return
        speed = last.tokens / max(last.seconds, 1e-9)
        self.send(
            Progress(self.job.number, last.step, self.total_steps, last.loss, speed, evaluating)
        )

    def _on_epoch(self, report: EpochReport) -> bool:
        """Record an evaluation and wait for the answer; say whether there was one."""
        # Recorded before the trainer is asked to go on: only then it checkpoints this evaluation,
        # so after a kill the report comes again rather than never.
        self.recorder.on_epoch(report)
        self.minutes = _minutes_until(report, self.config)
        self.send(
            Evaluated(
                self.job.number, report.epoch, report.step, dict(report.scores), report.best_score
            )
        )
        self._say_notices()
        answer = self.orders.wait_for_answer()
        self.pruned = isinstance(answer, Cancel)
        return answer is not None

    def _say_notices(self) -> None:
        """Hand on what was done in MLflow that a person should know."""
        for text in self.uploader.notices():
            self._notice(text)

    def _finish(self, checkpoints: Path) -> Finished:
        stopping = self.orders.stopping.is_set
        self._check_inputs()
        recorded = self.recorder.finish(
            self.config, checkpoints, Path(self.job.cache_dir), stopping
        )
        self._check_inputs()
        # If MLflow is away, the dispatcher sends what waits when it is back.
        self.uploader.wait([self.outbox], should_stop=stopping)
        self._say_notices()
        best = recorded.best
        return Finished(
            self.job.number,
            float(best.scores["score"]),
            dict(best.scores),
            {name: asdict(given) for name, given in recorded.estimates.items()},
            best.epoch,
            self.minutes or _minutes_until(best, self.config),
            recorded.trainable,
            sum(file.stat().st_size for file in checkpoints.glob("*.safetensors")),
            recorded.model_bytes,
            [str(picture) for picture in recorded.pictures],
        )


def _minutes_until(report: EpochReport, config: Config) -> float:
    """Minutes of training and evaluation until a report, lives before this one included."""
    evaluations = -(-report.epoch // config.train.eval_every)
    return (report.train_seconds + report.eval_seconds * evaluations) / 60
