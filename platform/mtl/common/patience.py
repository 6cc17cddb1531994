"""Deadlines in time that a process has lived through itself.

A clock goes on while a process is stopped: by SIGSTOP or Ctrl-Z, in a frozen container, with a
machine that sleeps. Whoever is waited for often is stopped with it, and when both wake up, every
deadline is past, though nobody has had the time that it means.
"""

from __future__ import annotations

import time

LOOK = 1.0
"""Seconds between looks at a deadline, at most."""


class Patience:
    """So many seconds, of which what lies between two looks counts no more than a look should take.

    To be looked at (`over`) about every `look` seconds. On a busy machine, where looks come late,
    it lasts longer.
    """

    def __init__(self, seconds: float, look: float = LOOK) -> None:
        self._seconds, self._look = seconds, look
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self._spent, self._looked = 0.0, time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the seconds are spent."""
        now = time.monotonic()
        self._spent += min(now - self._looked, self._look)
        self._looked = now
        return self._spent >= self._seconds

    @property
    def pause(self) -> float:
        """Seconds to wait until the next look: what is left, and no more than a look."""
        return max(0.0, min(self._seconds - self._spent, self._look))


def sleep_awake(seconds: float) -> None:
    """Sleep for so many seconds in which this process is not stopped."""
    patience = Patience(seconds)
    while not patience.over:
        time.sleep(patience.pause)
