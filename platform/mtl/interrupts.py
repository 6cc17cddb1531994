"""SIGINT, SIGTERM and SIGHUP while a study runs: the first asks, the second does not."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

# SIGHUP: the terminal was closed, or the connection to it lost.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopNow(KeyboardInterrupt):
    """The second signal. No Exception, so nothing on the way swallows it."""


class Interrupts:
    """Catches these signals inside a `with`; those that are ignored (`nohup`) stay so.

    Attributes:
        asked: a first signal has come; finish what must be finished and leave.
    """

    def __init__(self) -> None:
        self.asked = False
        self._raised = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        # Python runs signal handlers in the main thread alone; elsewhere the caller has its own.
        if threading.current_thread() is threading.main_thread():
            heeded = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._on_signal) for number in heeded}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked = True
        elif not self._raised:  # a third one must not break into the leaving
            self._raised = True
            raise StopNow
