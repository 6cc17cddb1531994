"""The contract of whoever runs trials for the dispatcher."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..worker.messages import Event, TrialJob


class Executor(ABC):
    """Runs trials in `workers` processes that stay warm, each with `places` for trials.

    A trial goes: submit -> Progress*, Evaluated -> advance or cancel -> ... -> exactly one of
    Finished, Failed, Stopped, Died. No method blocks but `events` and `close`; all but
    `keep_alive` are called from one thread. Commands for a trial that has ended in the meantime are
    ignored.

    Attributes:
        workers: that there are; places: trials at the same time in each.
        width: trials at the same time that were asked for, or that suit where none were.
        note: what the user should know of where trials run; None: nothing.
    """

    width: int
    workers: int
    places: int = 1
    note: str | None = None

    @property
    @abstractmethod
    def free(self) -> int:
        """How many trials can begin now."""

    @abstractmethod
    def submit(self, job: TrialJob) -> None:
        """Start a trial; where no place is free, since others that a worker has lost go on before
        it, as soon as one is."""

    @abstractmethod
    def advance(self, number: int) -> None:
        """Let a trial go on after an Evaluated."""

    @abstractmethod
    def cancel(self, number: int, prune: bool = False) -> None:
        """Stop a trial: with a checkpoint (-> Stopped), or for good with its artifacts written
        (`prune`, only in answer to an Evaluated; -> Finished)."""

    @abstractmethod
    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for something to happen; return what did, in order."""

    @abstractmethod
    def keep_alive(self) -> None:
        """Tell every worker that its dispatcher is there. Any thread may call it.

        One that hears nothing for `mtl.worker.messages.SILENCE` seconds checkpoints its trial and
        ends."""

    @abstractmethod
    def close(self) -> None:
        """End all workers at once. What has not stopped by then loses the work since its last
        checkpoint."""
