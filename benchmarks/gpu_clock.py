"""How long a part of `gpu.py` may take, and what became of it."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterator


class Clock:
    """The time of one part, from now on.

    What has not begun when it is over is left out; what fails ends alone, and the rest goes on.

    Attributes:
        left_out: what was left out. faults: what failed, and by which error.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self.left_out: list[str] = []
        self.faults: list[str] = []

    @property
    def left(self) -> float:
        """Seconds until it is over; negative after that."""
        return self._end - time.monotonic()

    def has_time(self) -> bool:
        return self.left > 0

    def attempt(self, what: str, measure: Callable[[], dict]) -> dict | None:
        """Return what is measured; None where there is no time for it, or where it fails."""
        if not self.has_time():
            self.left_out.append(what)
            return None
        try:
            return measure()
        except TimeoutError:
            self.left_out.append(f"{what}: not done in time")
            return None
        except Exception as error:  # noqa: BLE001 (whatever fails on a card, the others are measured)
            traceback.print_exc(file=sys.stderr)
            first = str(error).partition("\n")[0]
            self.faults.append(f"{what}: {type(error).__name__}: {first}")
            return None

    def rounds(self, what: str, count: int) -> Iterator[int]:
        """Yield the numbers of rounds, the first always, the others while there is time."""
        for number in range(count):
            if number and not self.has_time():
                self.left_out.append(f"{what}: {count - number} of {count} rounds")
                return
            yield number
