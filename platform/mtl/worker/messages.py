"""What the dispatcher and its workers say to each other. Plain values: they cross processes."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field

SILENCE = 30.0
"""Seconds without a word from its dispatcher after which a worker is on its own. By then another
may have taken the study over: see `mtl.storage.lease.TERM`."""
LEFT_ALONE = 75
"""Exit code of a worker that heard nothing for so long."""

# ---- from the dispatcher to a worker ------------------------------------------------------------


@dataclass(frozen=True)
class TrialJob:
    """One trial to train.

    Attributes:
        study: the study's name. number: the trial's.
        config: every configuration key.
        checkpoint_dir: where it is checkpointed, and resumed from if there is something.
        cache_dir: tokenised data, shared by all.
        outbox: folder of its run's outbox, which the worker fills and sends.
        tracking_uri: MLflow's store. artifact_root: its artifacts, where it is an SQLite file.
        threads: of the processor, for this trial.
        resumed: it was started before.
        inputs: digests of data and backbone, by their configuration keys, as the study has them.
        apart: it has twice been lost with others, and shall have a worker for itself: then it is
            seen whose fault that was.
    """

    study: str
    number: int
    config: dict[str, object]
    checkpoint_dir: str
    cache_dir: str
    outbox: str
    tracking_uri: str
    artifact_root: str
    threads: int = 1
    resumed: bool = False
    inputs: dict[str, str] = field(default_factory=dict)
    apart: bool = False


@dataclass(frozen=True)
class Advance:
    """Train on, to the next evaluation."""

    number: int


@dataclass(frozen=True)
class Cancel:
    """Stop training. With `prune` the trial ends with what it has, else it is checkpointed."""

    number: int
    prune: bool = False


@dataclass(frozen=True)
class Alive:
    """The dispatcher is there, even if it has nothing to say."""


# ---- from a worker to the dispatcher ------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a training is; a few times a second, and when an evaluation begins."""

    number: int
    step: int
    total_steps: int
    loss: float
    tokens_per_second: float
    evaluating: bool = False


@dataclass(frozen=True)
class Evaluated:
    """An evaluation is recorded; the worker waits for Advance or Cancel."""

    number: int
    epoch: int
    step: int
    scores: dict[str, float]
    best_score: float


@dataclass(frozen=True)
class Noticed:
    """Something of a training that the user should know; it goes on."""

    number: int
    text: str


@dataclass(frozen=True)
class Finished:
    """The training is over, and its run holds the artifacts of the best epoch.

    Attributes:
        score: of the best epoch; scores: all of its scores; estimates: their intervals, and
            those of the errors. best_epoch: counted from 1.
        minutes: of training and evaluation.
        trainable: parameters. checkpoint_bytes: of the last checkpoint folder.
        model_bytes: of the weights that are kept.
        pictures: PNG files, on the worker's machine.
    """

    number: int
    score: float
    scores: dict[str, float]
    estimates: dict[str, dict[str, float]]
    best_epoch: int
    minutes: float
    trainable: int
    checkpoint_bytes: int
    model_bytes: int
    pictures: list[str] = field(default_factory=list)

    @property
    def attributes(self) -> dict[str, object]:
        """What is written down at the trial."""
        return {
            "scores": self.scores,
            **{name: value for name, value in self.scores.items() if name != "score"},
            "estimates": self.estimates,
            "best_epoch": self.best_epoch,
            "minutes": self.minutes,
            "trainable_parameters": self.trainable,
            "checkpoint_bytes": self.checkpoint_bytes,
            "model_bytes": self.model_bytes,
        }


@dataclass(frozen=True)
class Failed:
    """The training raised.

    Attributes:
        traceback: where; empty if there is nothing to see in it.
        bad_input: by the user's doing.
        memory: there was not enough; another worker may have more.
        beside: trials that were in the same worker, and took memory, too.
        blocked: by the machine, not by the training: any other trial would fail like this one.
    """

    number: int
    reason: str
    traceback: str = ""
    bad_input: bool = False
    memory: bool = False
    blocked: bool = False
    beside: int = 0


@dataclass(frozen=True)
class Stopped:
    """The training was checkpointed and can go on elsewhere.

    Attributes:
        alone: the worker has heard nothing of its dispatcher for `SILENCE` seconds, and ends.
        crowded: another trial of the worker lacked memory, and so the worker ends.
    """

    number: int
    alone: bool = False
    crowded: bool = False


@dataclass(frozen=True)
class Died:
    """The worker is gone. Says the executor.

    Attributes:
        exitcode: negative for a signal, None if unknown.
        memory: the system has ended a process for want of memory, so most likely this one.
        place: what died: the worker, or the node that it was on.
        beside: trials that were in it, too: any of them may have been the cause.
    """

    number: int
    exitcode: int | None
    memory: bool = False
    place: str = "worker"
    beside: int = 0

    @property
    def alone(self) -> bool:
        """Whether it has left by itself, as one that hears nothing of its dispatcher does."""
        return self.exitcode == LEFT_ALONE

    @property
    def how(self) -> str:
        """How the process ended: ``was killed by SIGKILL (out of memory)``."""
        if self.exitcode is None:
            return "was killed (out of memory)" if self.memory else "is gone"
        if self.exitcode >= 0:
            return f"exited with code {self.exitcode}"
        try:
            name = signal.Signals(-self.exitcode).name
        except ValueError:
            name = f"signal {-self.exitcode}"
        hint = " (out of memory)" if self.memory else ""
        return f"was killed by {name}{hint}"


Event = Progress | Evaluated | Noticed | Finished | Failed | Stopped | Died

ENDINGS = (Finished, Failed, Stopped, Died)
"""The last that is heard of a trial."""
