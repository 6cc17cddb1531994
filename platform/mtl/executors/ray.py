"""Trials as tasks of a Ray cluster, which finds room for them."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from minbert import InputError

from ..common.masking import clean
from ..common.patience import Patience
from ..worker.messages import ENDINGS, Advance, Cancel, Died, Event, Failed, Stopped, TrialJob
from .base import Executor
from .resources import Folders, Resources

try:
    import ray
    from ray.exceptions import (
        NodeDiedError,
        OutOfMemoryError,
        RayError,
        RayTaskError,
        TaskUnschedulableError,
    )
except ImportError as missing:
    raise InputError(
        f"--executor ray needs Ray ({missing}); in the checkout: pip install -c constraints.txt "
        "'.[ray]'"
    ) from missing

from .ray_cluster import Cluster, node_context
from .ray_task import Begun, Mailbox, train

_OPEN = 60.0  # seconds that a question to the mailbox may stay open
_DRAIN = 10.0  # seconds for the mailbox to hand over what is in it


@dataclass
class _Attempt:
    """One task: at most one a trial counts, the newest."""

    number: int
    token: str
    begun: bool = False
    ended: bool = False


class RayExecutor(Executor):
    """Gives every trial to Ray as a task with its processors and GPUs declared.

    Ray decides where a trial runs, and when: one that finds no room waits in Ray's queue. Tasks are
    not retried by Ray (``max_retries=0``): a trial that lost its node is the dispatcher's to
    resume. Trials and dispatcher speak through a small actor on the head node. Processes of Ray's
    that have run a trial are used again, and stay warm.

    Raises:
        InputError: there is no cluster; its nodes do not see the home or the data, or have another
            version of mtl.
    """

    def __init__(self, resources: Resources, folders: Folders) -> None:
        self._cluster = Cluster()
        self._attempts: dict[Any, _Attempt] = {}  # by the task's reference
        self._own: list[Event] = []  # said by this object itself
        self._closing, self._closed = threading.Lock(), False
        try:
            self._open(resources, folders)
        except RayError as error:
            self._cluster.close()
            raise InputError(f"the Ray cluster fails: {_short(error)}") from error
        except InputError:
            self._cluster.close()
            raise

    def _open(self, resources: Resources, folders: Folders) -> None:
        self._cpus = 1.0 if resources.cpus is None else resources.cpus
        gpus = 1.0 if self._cluster.total("GPU") else 0.0
        self._gpus = gpus if resources.gpus is None else resources.gpus
        room = self._cluster.room(self._cpus, self._gpus)
        self.width, self.workers = resources.width(room), resources.workers(room)
        if room < self.workers:
            self.note = self._crowded(room)
        self._context = node_context(folders)
        self._cluster.check(self._context, folders.tracking_uri)
        actor = ray.remote(Mailbox).options(
            num_cpus=0, resources=dict(self._cluster.head), max_concurrency=2 * self.width + 100
        )
        self._mailbox: Any = actor.remote()  # Ray's types know no `.remote` of its methods
        self._asked = self._ask()
        self._task = ray.remote(train).options(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            max_retries=0,
            scheduling_strategy="SPREAD",
        )

    @property
    def free(self) -> int:
        return self.workers - sum(not attempt.ended for attempt in self._attempts.values())

    def submit(self, job: TrialJob) -> None:
        token = secrets.token_hex(8)
        job = replace(job, threads=max(1, int(self._cpus)))
        with _head_there():
            reference = self._task.remote(job, token, self._mailbox, self._context)
        self._attempts[reference] = _Attempt(job.number, token)

    def advance(self, number: int) -> None:
        self._tell(number, Advance(number))

    def cancel(self, number: int, prune: bool = False) -> None:
        self._tell(number, Cancel(number, prune))
        for reference, attempt in self._running(number):
            if not attempt.begun:  # it waits for room, and would hear of this too late
                with _head_there():
                    ray.cancel(reference)
                attempt.ended = True
                self._own.append(Stopped(number))

    def events(self, timeout: float) -> list[Event]:
        with _head_there():
            return self._events(timeout)

    def _events(self, timeout: float) -> list[Event]:
        events, self._own = self._own, []
        watched = [self._asked, *self._attempts]
        ready, _ = ray.wait(watched, num_returns=1, timeout=0 if events else timeout)
        if ready:  # whatever else has happened by now
            ready, _ = ray.wait(watched, num_returns=len(watched), timeout=0)
        if self._asked in ready:
            events += self._said()
        for reference in ready:
            if reference is not self._asked and reference in self._attempts:
                events += self._over(reference)
        return events

    def keep_alive(self) -> None:
        with self._closing:
            if not self._closed:
                with _if_there():  # `events` says so
                    self._mailbox.alive.remote()

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with _if_there():  # or the cluster is gone, and they with it
            for reference, attempt in self._attempts.items():
                if not attempt.ended:
                    ray.cancel(reference, force=True)
            ray.kill(self._mailbox)
        self._attempts.clear()
        self._cluster.close()

    def _crowded(self, room: int) -> str:
        each = f"{self._cpus:g} CPUs" + (f" and {self._gpus:g} GPUs" if self._gpus else "")
        if not room and not self._cluster.address:
            raise InputError(
                f"no trial with {each} fits on this machine: give less with --cpus-per-trial and "
                "--gpus-per-trial"
            )
        return (
            f"the Ray cluster has room for {room} trials with {each}; of {self.workers} the others "
            "wait in its queue, for that or for more nodes"
        )

    # ---- the mailbox ----------------------------------------------------------------------------

    def _ask(self) -> Any:
        return self._mailbox.events.remote(_OPEN)

    def _tell(self, number: int, word: Advance | Cancel) -> None:
        for _, attempt in self._running(number):
            with _head_there():
                self._mailbox.tell.remote(attempt.token, word)

    def _running(self, number: int) -> list[tuple[Any, _Attempt]]:
        attempts = self._attempts.items()
        return [(ref, each) for ref, each in attempts if each.number == number and not each.ended]

    def _said(self) -> list[Event]:
        """Take what trials have said since this was asked, and ask again."""
        said = ray.get(self._asked)
        self._asked = self._ask()
        return list(self._told(said))

    def _told(self, said: list[tuple[str, Event | Begun]]) -> Iterator[Event]:
        by_token = {attempt.token: attempt for attempt in self._attempts.values()}
        for token, event in said:
            attempt = by_token.get(token)
            if attempt is None or attempt.ended:
                continue
            if isinstance(event, Begun):
                attempt.begun = True
                continue
            attempt.ended = isinstance(event, ENDINGS)
            yield event

    def _over(self, reference: Any) -> list[Event]:
        """A task is over: forget it, and if it has not said how, its process or node has died."""
        events: list[Event] = []
        attempt, patience = self._attempts[reference], Patience(_DRAIN)
        error = _error(reference)
        # What it said last may still be on its way; without an error it has said it.
        while not attempt.ended and error is None and not patience.over:
            if ray.wait([self._asked], timeout=patience.pause)[0]:
                events += self._said()
        del self._attempts[reference]
        if not attempt.ended:
            events.append(_death(attempt.number, error))
        return events


class _HeadLostError(InputError):
    """Trials are led through the cluster's head node, and it is gone."""


@contextlib.contextmanager
def _head_there() -> Iterator[None]:
    """Say what is lost when the head node is: its mailbox, or the client's connection to it."""
    try:
        yield
    except Exception as error:
        if not _is_lost(error):
            raise
        raise _HeadLostError(
            "the Ray cluster has lost its head node, through which trials are led; when it is "
            "back, run the same command again: trials go on from their checkpoints"
        ) from error


@contextlib.contextmanager
def _if_there() -> Iterator[None]:
    """Pass over that the head node, or the connection to it, is lost."""
    with contextlib.suppress(_HeadLostError), _head_there():
        yield


def _is_lost(error: Exception) -> bool:
    # A client that has lost its server raises gRPC's error, or an exception of no kind of its own.
    of_grpc = any(kind.__name__ == "RpcError" for kind in type(error).__mro__)
    unconnected = str(error).startswith("Ray Client is not connected")
    return isinstance(error, RayError | ConnectionError) or of_grpc or unconnected


def _error(reference: Any) -> RayError | None:
    try:
        ray.get(reference)
    except RayError as error:
        return error
    return None


def _death(number: int, error: RayError | None) -> Event:
    if isinstance(error, TaskUnschedulableError):
        return Failed(number, f"Ray cannot place it: {_short(error)}")
    if isinstance(error, RayTaskError):
        return Failed(number, f"{type(error.cause).__name__}: {_short(error.cause)}", str(error))
    place = "node" if isinstance(error, NodeDiedError) else "worker"
    return Died(number, None, isinstance(error, OutOfMemoryError), place)


def _short(error: BaseException) -> str:
    return " ".join(clean(str(error)).split())[:300]
