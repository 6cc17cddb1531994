"""SIGINT, SIGTERM and SIGHUP while something is recorded: the first asks, the second hurries.

No signal raises anything. An exception that comes between any two instructions can leave a lock
taken or a transaction open, on which the leaving would then wait for good. Instead a thread hears
of signals, even while the main thread is inside a long call, and flags are looked at. What has not
left a few seconds after a second signal is ended there and then, as `kill -9` would end it: that
loses nothing that was recorded. So is, after one signal, what is still preparing: MLflow takes
seconds to make its tables, and hears of nothing meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

# SIGHUP: the terminal was closed, or the connection to it lost.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE = 2.0  # seconds to leave in after a second signal
_PREPARING = 3.0  # seconds to leave in after the first, while there is nothing to checkpoint
_INTERRUPTED = 130
_SHOW_CURSOR = "\x1b[?25h"

_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Interrupts:
    """Catches these signals inside a `with`; those that are ignored (`nohup`) stay so.

    Args:
        last_words: what is said, in one line, where the process has to be ended.

    Attributes:
        asked: a first signal has come; finish what must be finished and leave.
        hurried: a second one has come; finish nothing, leave.
        preparing: nothing is under way yet that would have to be finished.
    """

    def __init__(self, last_words: str) -> None:
        self.asked = False
        self.hurried = False
        self.preparing = False
        self._last_words = last_words
        self._left = threading.Event()
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Interrupts:
        # Python lets the main thread alone set handlers; elsewhere the caller has its own.
        if threading.current_thread() is threading.main_thread():
            self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        while self._undo:
            self._undo.pop()()

    def _listen(self) -> None:
        """Have the system write each signal's number into a pipe that a thread reads."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        thread = threading.Thread(target=self._hear, args=(reading,), name="signals", daemon=True)
        thread.start()
        self._undo = [lambda: os.close(reading), thread.join, lambda: os.close(writing)]
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._undo.append(lambda: signal.set_wakeup_fd(before))
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._undo.append(_restored(number, signal.signal(number, _nothing)))

    def _hear(self, reading: int) -> None:
        while received := os.read(reading, 1):
            if received[0] not in SIGNALS:
                continue
            if not self.asked:
                self.asked = True
                threading.Thread(target=self._hurry_preparing, daemon=True).start()
            elif not self.hurried:
                self.hurried = True
                if not self._left.wait(_PATIENCE):
                    self._end()

    def _hurry_preparing(self) -> None:
        if not self._left.wait(_PREPARING) and self.preparing:
            self._end()

    def _end(self) -> None:
        stream = sys.stderr.fileno() if sys.stderr is not None else 2
        cursor = _SHOW_CURSOR if os.isatty(stream) else ""
        os.write(stream, f"{cursor}\nmtl: {self._last_words}\n".encode())
        os._exit(_INTERRUPTED)


def _nothing(number: int, frame: object) -> None:
    """Handle a signal: that there is a handler makes the system write it into the pipe."""


def _restored(number: int, handler: _Handler) -> Callable[[], object]:
    return lambda: signal.signal(number, handler)
