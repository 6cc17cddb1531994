"""A database server that is away for a while: what needs it waits, and is done again.

A connection may be lost after the server has done what it was asked, and before it could say so.
So every step that is taken through an outage must come to the same when it is taken twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa

from ..common.faults import away

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ..common.signals import Interrupts

_TICK = 0.1  # seconds between looks at signals
_FIRST, _LAST = 0.5, 15.0  # seconds until the server is tried again, doubled each time

Done = TypeVar("Done")


class LeftError(KeyboardInterrupt):
    """A signal came while the database was away: nothing more can be written down."""


class Outage:
    """Takes a study through the times when its database is away.

    SQLite's files are never away: their faults are raised as they are.

    Args:
        engine: the study's database.
        say: is told when the database goes away and when it is back, once each.
    """

    def __init__(self, engine: Engine, say: Callable[[str], None], interrupts: Interrupts) -> None:
        self._engine, self._say, self._interrupts = engine, say, interrupts
        self._patient = engine.dialect.name != "sqlite"
        self._away = False

    def through(
        self,
        step: Callable[[], Done],
        meanwhile: Callable[[float], object] = time.sleep,
        before_again: Callable[[], object] = lambda: None,
    ) -> Done:
        """Take a step; again when the database is back, as often as it was away.

        Args:
            step: comes to the same when it is taken twice.
            meanwhile: called with some seconds to spend, over and over, while it is away.
            before_again: what an interrupted step may have left is put right.

        Raises:
            LeftError: a signal came while the database was away.
        """
        pause, failed = _FIRST, False
        while True:
            if self._away and self._interrupts.asked:
                raise LeftError("interrupted while the database was away")
            try:
                if failed:
                    before_again()
                done = step()
            except Exception as error:
                reason = away(error) if self._patient else None
                if reason is None:
                    raise
                failed = True
                self._notice(reason)
            else:
                self._welcome()
                return done
            self._wait(pause, meanwhile)
            pause = min(2 * pause, _LAST)

    def _notice(self, reason: str) -> None:
        if not self._away:
            self._away = True
            self._say(
                f"the database is away ({reason}): training goes on, and what is to be written "
                "down waits for it"
            )

    def _welcome(self) -> None:
        if self._away:
            self._away = False
            self._say("the database answers again: the study goes on")

    def _wait(self, pause: float, meanwhile: Callable[[float], object]) -> None:
        """Wait until the server answers, or a signal comes."""
        back, enough = threading.Event(), threading.Event()
        # A thread of its own: a machine that is gone is waited for, a signal is heard meanwhile.
        threading.Thread(
            target=self._probe, args=(pause, back, enough), name="outage", daemon=True
        ).start()
        while not (back.is_set() or self._interrupts.asked):
            meanwhile(_TICK)
        enough.set()

    def _probe(self, pause: float, back: threading.Event, enough: threading.Event) -> None:
        while not enough.wait(pause):
            try:
                with self._engine.connect() as connection:
                    connection.execute(sa.select(1))
            except sa.exc.SQLAlchemyError:
                pause = min(2 * pause, _LAST)
            else:
                back.set()
                return
