"""One trial after another, in a process of its own.

Run as ``python -m mtl.worker FD`` by an executor; FD is a pipe to the dispatcher.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from multiprocessing.connection import Connection

from ..common import process
from ..common.masking import mask_streams
from .commands import Commands
from .messages import LEFT_ALONE, Event, Failed
from .trial import run_trial


def main(descriptor: int) -> None:
    """Work until the dispatcher closes the pipe or falls silent, or there is too little memory."""
    process.tune_gc()
    faulthandler.enable()  # a crash in compiled code leaves its place in the log
    connection = Connection(descriptor)
    commands = Commands(connection)
    # The dispatcher decides what an interrupt means; a request to terminate means a checkpoint.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: commands.stopping.set())
    _load()

    def send(event: Event) -> None:
        try:
            connection.send(event)
        except OSError:
            commands.stopping.set()

    while (job := commands.next_job()) is not None:
        end = run_trial(job, commands, send)
        send(end)
        if isinstance(end, Failed) and end.memory:
            return  # what it holds is given back; the next trial gets a new process
    if commands.alone:
        connection.close()  # so that it is given no trial while it leaves
        sys.exit(LEFT_ALONE)


def _load() -> None:
    """Import what every trial needs, once."""
    import minbert.training.loop  # noqa: F401

    from ..tracking import run_recorder, sender  # noqa: F401
    from ..tracking.store import load_mlflow

    load_mlflow()


if __name__ == "__main__":
    mask_streams()  # both are a log
    main(int(sys.argv[1]))
