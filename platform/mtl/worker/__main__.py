"""Trials, one after another or several at a time, in a process of their own.

Run as ``python -m mtl.worker FD PLACES`` by an executor; FD is a pipe to the dispatcher, PLACES how
many trials may be here at a time.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ..common import process
from ..common.masking import mask_streams
from .commands import Commands, Orders
from .messages import LEFT_ALONE, Event, Failed
from .trial import run_trial

if TYPE_CHECKING:
    from minbert.training.cohort import Cohort


_WEIGHTS = ("backbone", "train.precision")  # which frozen weights a trial has


def main(descriptor: int, places: int) -> None:
    """Work until the dispatcher closes the pipe or falls silent, or there is too little memory."""
    process.tune_gc()
    if places > 1:
        process.parse_in_turn()
    faulthandler.enable()  # a crash in compiled code leaves its place in the log
    connection = Connection(descriptor)
    commands = Commands(connection)
    # The dispatcher decides what an interrupt means; a request to terminate means a checkpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: commands.stop())
    _load()
    _Places(connection, commands, places).work()
    if commands.alone:
        connection.close()  # so that it is given no trial while it leaves
        sys.exit(LEFT_ALONE)


class _Places:
    """Where a process has its trials: the only one in the main thread, several in threads."""

    def __init__(self, connection: Connection, commands: Commands, places: int) -> None:
        self._connection, self._commands, self._places = connection, commands, places
        self._cohorts: dict[tuple[object, ...], Cohort] = {}
        self._speaking = threading.Lock()

    def work(self) -> None:
        """Train what comes, until there will be no more and all has ended."""
        threads: list[threading.Thread] = []
        while (orders := self._commands.next_job()) is not None:
            if self._places == 1:
                self._train(orders, None)
                continue
            # Threads that do not keep the process: it is ended where they do not end in time.
            name = f"trial {orders.job.number}"
            given = orders, self._cohort_of(orders)
            thread = threading.Thread(target=self._train, args=given, name=name, daemon=True)
            thread.start()
            threads = [*(other for other in threads if other.is_alive()), thread]
        for thread in threads:
            thread.join()

    def _cohort_of(self, orders: Orders) -> Cohort:
        """Return the cohort of the trials whose frozen weights are a trial's, too."""
        from minbert.training.cohort import Cohort

        weights = tuple(orders.job.config.get(key) for key in _WEIGHTS)
        return self._cohorts.setdefault(weights, Cohort(self._places))

    def _train(self, orders: Orders, cohort: Cohort | None) -> None:
        end = run_trial(orders, self._send, cohort)
        others = self._commands.over(orders)
        if isinstance(end, Failed) and end.memory:
            # What they hold is given back; the next trials get a new process. Who lacks memory in a
            # pass that others share lacks it with them.
            self._commands.make_room()
            end = replace(end, beside=max(others, orders.crowded))
        self._send(end)

    def _send(self, event: Event) -> None:
        try:
            with self._speaking:
                self._connection.send(event)
        except OSError:
            self._commands.stop()


def _load() -> None:
    """Import what every trial needs, once."""
    import minbert.training.loop  # noqa: F401

    from ..tracking import run_recorder, sender  # noqa: F401
    from ..tracking.store import load_mlflow

    load_mlflow()


if __name__ == "__main__":
    mask_streams()  # both are a log
    main(int(sys.argv[1]), int(sys.argv[2]))
