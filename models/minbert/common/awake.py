"""Time that this process was awake for: what is reported as a training's minutes.

Clocks go on while a process is stopped (SIGSTOP, a frozen container). A thread looks at the time
every second; where nobody could look for longer, nothing was computed either.
"""

from __future__ import annotations

import threading
import time

_EVERY = 1.0  # seconds between looks
_STOPPED = 5.0  # without a look for so many seconds: on a busy machine one is late, too

_lock = threading.Lock()
_looked: float | None = None
_lost = 0.0


def awake() -> float:
    """Return seconds of this process' life, those in which it was stopped left out; only the
    difference between two calls means something."""
    global _looked, _lost
    with _lock:
        now = time.perf_counter()
        if _looked is None:
            threading.Thread(target=_watch, name="awake", daemon=True).start()
        elif now - _looked > _STOPPED:
            _lost += now - _looked - _EVERY
        _looked = now
        return now - _lost


def _watch() -> None:
    while True:
        time.sleep(_EVERY)
        awake()
