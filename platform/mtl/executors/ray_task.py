"""The half of the Ray executor that runs on the cluster: a trial as a task, and the mailbox.

Nothing here is imported by anyone but the executor's other half and the cluster's nodes, which need
mtl installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
from collections import defaultdict, deque
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from ..worker.messages import (
    LEFT_ALONE,
    Advance,
    Alive,
    Cancel,
    Event,
    Failed,
    Stopped,
    TrialJob,
)

_PACE = 5.0  # seconds that a question to the mailbox may stay open
_LAST_WORD = 5.0  # seconds for the last that is said
HOME_ID = ".home-id"
"""A file in the home with a random name in it: who reads another there, or none, has another home
at the same path."""


class Mailbox:
    """Passes on what a dispatcher and its trials say to each other: an asynchronous Ray actor.

    Each attempt at a trial has a token of its own, so nothing that an attempt which was given up
    still says is taken for the next one's word.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, Event | Begun]] = []
        self._words: defaultdict[str, deque] = defaultdict(deque)
        self._changed = asyncio.Condition()
        self._beats = 0  # signs of life that the dispatcher has given

    async def post(self, token: str, event: Event | Begun) -> None:
        """Say something to the dispatcher."""
        async with self._changed:
            self._events.append((token, event))
            self._changed.notify_all()

    async def events(self, timeout: float) -> list[tuple[str, Event | Begun]]:
        """Return what was said to the dispatcher, in order; wait for it up to `timeout` seconds."""
        await self._wait_for(lambda: self._events, timeout)
        said, self._events = self._events, []
        return said

    async def tell(self, token: str, word: Advance | Cancel) -> None:
        """Say something to a trial."""
        async with self._changed:
            self._words[token].append(word)
            self._changed.notify_all()

    async def alive(self) -> None:
        """Note that the dispatcher is there."""
        async with self._changed:
            self._beats += 1
            self._changed.notify_all()

    async def listen(
        self, token: str, beats: int, timeout: float
    ) -> tuple[int, list[Advance | Cancel]]:
        """Return the dispatcher's signs of life, counted, and what was said to a trial: as soon as
        there is one beside the `beats` that it knows, after `timeout` seconds at most."""
        await self._wait_for(lambda: self._words[token] or self._beats != beats, timeout)
        return self._beats, list(self._words.pop(token, ()))

    async def _wait_for(self, something: Any, timeout: float) -> None:
        async with self._changed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(something), timeout)


class _Line:
    """A trial's end of the mailbox, as a `mtl.worker.commands.Line`: the trial comes first."""

    def __init__(self, mailbox: Any, token: str, job: TrialJob) -> None:
        self._mailbox, self._token = mailbox, token
        self._words: deque[TrialJob | Advance | Cancel | Alive] = deque([job])
        self._beats = 0
        self._asked: Any = None
        self.ended = False

    def poll(self, timeout: float) -> bool:
        if self.ended:
            raise EOFError
        if not self._words:
            if self._asked is None:
                self._asked = self._mailbox.listen.remote(self._token, self._beats, _PACE)
            if ray.wait([self._asked], timeout=timeout)[0]:
                self._words.extend(self._heard())
        return bool(self._words)

    def recv(self) -> TrialJob | Advance | Cancel | Alive:
        return self._words.popleft()

    def _heard(self) -> list[Advance | Cancel | Alive]:
        asked, self._asked = self._asked, None
        try:
            beats, words = ray.get(asked)
        except RayError as error:  # the mailbox is gone, and the dispatcher with it
            raise EOFError from error
        alive = [Alive()] if beats != self._beats else []
        self._beats = beats
        return [*alive, *words]


@dataclass(frozen=True)
class NodeContext:
    """What a node is told beside the trial.

    Attributes:
        home, home_id: see HOME_ID. folders: that must be there.
        folder: the dispatcher's current one, which relative paths start from.
        environment: variables that trials heed. Not in Ray's runtime environment, which anybody
            reads in its dashboard: there are passwords among them.
    """

    home: str
    home_id: str
    folders: tuple[str, ...]
    folder: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Seen:
    """What a node says of itself: its machine, its version of mtl, what is wrong with it."""

    host: str
    machine: str
    version: str
    wrong: str | None


def look(context: NodeContext) -> Seen:
    """Look at a node: a Ray task."""
    return Seen(platform.node(), machine_id(), version("mtl"), _wrong(context))


def machine_id() -> str:
    """Tell this machine, or container, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip() if boot.is_file() else ''}"


def _wrong(context: NodeContext) -> str | None:
    """Say why trials cannot run on this node; None if they can."""
    host = platform.node()
    for folder in (context.home, *context.folders):
        if not os.path.isdir(folder):
            return f"Ray node {host} does not see {folder}: it must lie on a folder that all share"
    try:
        found = Path(context.home, HOME_ID).read_text("utf-8")
    except OSError:
        found = ""
    if found != context.home_id:
        return (
            f"Ray node {host} has another folder at {context.home}: the home must lie on a folder "
            "that all nodes share"
        )
    if not os.access(context.home, os.W_OK):
        return f"Ray node {host} cannot write {context.home}"
    return None


@dataclass(frozen=True)
class Begun:
    """An attempt runs. Says a task to the executor, which keeps it to itself."""


def train(job: TrialJob, token: str, mailbox: Any, context: NodeContext) -> None:
    """Train one trial to its end: a Ray task, which says how it ended through the mailbox."""
    ray.get(mailbox.post.remote(token, Begun()))
    wrong = _wrong(context)
    if wrong is None:
        end = _train(job, token, mailbox, context)
    else:
        end = Failed(job.number, wrong, blocked=True)
    ray.get(mailbox.post.remote(token, end))
    if isinstance(end, Failed) and end.memory:
        os._exit(1)  # what it holds is given back; the next trial gets a new process


def _train(job: TrialJob, token: str, mailbox: Any, context: NodeContext) -> Event:
    _settle_in(tuple(sorted(context.environment.items())), context.folder, context.home)
    from ..worker.commands import Commands
    from ..worker.trial import run_trial

    def send(event: Event) -> None:
        mailbox.post.remote(token, event)  # in order; not waited for

    def leave() -> None:
        ray.wait([mailbox.post.remote(token, Stopped(job.number, alone=True))], timeout=_LAST_WORD)
        os._exit(LEFT_ALONE)

    line = _Line(mailbox, token, job)
    commands = Commands(line, leave)
    try:
        begun = commands.next_job()
        assert begun is not None  # it stands in the line from the start
        return run_trial(begun, send)
    finally:
        commands.close()
        line.ended = True


@cache
def _settle_in(environment: tuple[tuple[str, str], ...], folder: str, home: str) -> None:
    """Make a process of Ray's a worker of ours, once, before torch and MLflow are loaded."""
    from ..common.masking import mask_streams
    from ..common.user_folders import settle_user_folders
    from ..storage.home import user_folders

    os.environ.update(environment)
    settle_user_folders(user_folders(Path(home)))
    os.chdir(folder if os.path.isdir(folder) else os.sep)
    mask_streams()
