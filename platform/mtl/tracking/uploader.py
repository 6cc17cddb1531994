"""The thread that sends what outboxes hold, while whoever records goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from .outbox import Outbox
from .refusals import AwayError, BlockedError, Hindrance, RefusedError
from .sender import Sender

_PACE = 0.5  # seconds between looks at the journals: points that are close go in one call
_TICK = 0.1  # seconds between looks at a caller's reason to wait no longer
_FIRST, _LAST = 2.0, 15.0  # seconds until MLflow is tried again, doubled each time
_IN_A_ROW = 3  # runs that are tried though MLflow, which answers, takes nothing
_OFTEN = 3  # rounds in which one run is not taken while others are: then it is that run
_log = logging.getLogger(__name__)


class Uploader:
    """Sends watched outboxes, in the order in which they were given, again and again.

    Attributes:
        hindrance: why MLflow takes nothing now; None while it does. It is tried again, whether
            that may pass by itself or not.
        refused: what MLflow will not take, by the outbox' folder, with the reason. It stays where
            it is; nothing more is sent of it by this process.
    """

    def __init__(self, sender: Sender) -> None:
        self.hindrance: Hindrance | None = None
        self.refused: dict[Path, str] = {}
        self._sender = sender
        self._boxes: dict[Path, Outbox] = {}
        self._touched: set[Path] = set()
        self._failed: Counter[Path] = Counter()
        self._changed = threading.Condition()
        self._hurry = threading.Event()
        self._ended = False
        self._pause = _FIRST
        self._thread = threading.Thread(target=self._work, name="uploader", daemon=True)
        self._thread.start()

    def watch(self, outbox: Outbox) -> None:
        """Send what this outbox holds, and what it will."""
        with self._changed:
            self._boxes[outbox.folder] = outbox

    def forget(self, outbox: Outbox) -> None:
        """Send nothing more of it: another process will."""
        with self._changed:
            self._boxes.pop(outbox.folder, None)
            self._sender.forget(outbox)

    def notices(self) -> list[str]:
        """Return what a person should know of what was done in MLflow, each once."""
        with self._changed:  # several trials may ask, and the thread may just add one
            told = list(self._sender.notices)
            del self._sender.notices[: len(told)]
        return told

    def touched(self) -> set[Path]:
        """Return the watched outboxes, by folder, of which something was sent, or of which MLflow
        was seen to have everything, since this was asked last."""
        with self._changed:
            touched, self._touched = self._touched, set()
        return touched

    def wait(
        self,
        outboxes: Iterable[Outbox],
        seconds: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Wait until MLflow has everything in these outboxes; say whether it has.

        Not longer than ``seconds``, not while MLflow is away or refuses one of them, and not once
        ``should_stop()`` is true. With ``seconds`` None a long upload is waited for.
        """
        left = deque(outboxes)
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._changed:
            while left:
                if left[0].empty:
                    left.popleft()
                    continue
                if self._hopeless(left) or should_stop():
                    return False
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                self._hurry.set()
                self._changed.wait(_TICK)
        return True

    def _hopeless(self, boxes: Collection[Outbox]) -> bool:
        if self.hindrance is not None or not self._thread.is_alive():
            return True
        return bool(self.refused) and any(box.folder in self.refused for box in boxes)

    def close(self, seconds: float = 1.0) -> None:
        """End the thread, after one last attempt that may take so many seconds."""
        self._ended = True
        self._hurry.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._ended:
            self._hurry.wait(_PACE)
            self._hurry.clear()
            if self._round():
                self._pause = _FIRST
            elif not self._ended:
                self._rest()

    def _rest(self) -> None:
        """Leave MLflow alone for a while, which grows."""
        deadline = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST)
        while not self._ended and time.monotonic() < deadline:
            time.sleep(_TICK)

    def _round(self) -> bool:
        """Send what waits; say whether all of it was taken, or refused for good."""
        with self._changed:
            boxes = [box for box in self._boxes.values() if box.folder not in self.refused]
        taken, failed = 0, {}
        for box in boxes:
            if not box.begun:
                continue
            if box.empty:
                self._touch(box)
                continue
            lock = box.sole_sender()
            if lock is None:
                continue
            try:
                hindrance = self._send(box)
            finally:
                lock.release()
            if hindrance is None:
                taken, self.hindrance = taken + 1, None
            else:
                failed[box] = hindrance
                if not hindrance.answers or (not taken and len(failed) >= _IN_A_ROW):
                    self.hindrance = hindrance
                    break
            self._touch(box)
        self._judge(taken, failed)
        return not failed

    def _judge(self, taken: int, failed: dict[Outbox, Hindrance]) -> None:
        """Put those last that failed. If others are taken again and again, it is that run that is
        not: it must not keep them waiting."""
        for box, hindrance in failed.items():
            with self._changed:
                if self._boxes.pop(box.folder, None) is not None:
                    self._boxes[box.folder] = box
            if not taken:
                self.hindrance = hindrance
            if not (taken and hindrance.answers):
                continue
            self._failed[box.folder] += 1
            if self._failed[box.folder] >= _OFTEN:
                self._refuse(box, hindrance.reason)
        for box in failed:
            self._touch(box)

    def _touch(self, box: Outbox) -> None:
        with self._changed:
            self._touched.add(box.folder)
            self._changed.notify_all()

    def _send(self, box: Outbox) -> Hindrance | None:
        """Send one outbox; return what was in the way, unless it was refused for good."""
        try:
            self._sender.send(box)
        except AwayError as error:
            hindrance = Hindrance(str(error) or "no reason was given", True, error.answers)
        except BlockedError as error:
            hindrance = Hindrance(str(error), passes=False)
        except RefusedError as error:
            self._refuse(box, str(error))
            return None
        except Exception as error:  # noqa: BLE001 (the edge of a thread: it must go on with others)
            _log.exception("%s cannot be sent", box.folder)
            self._refuse(box, f"{type(error).__name__}: {error}")
            return None
        else:
            self._failed.pop(box.folder, None)
            box.reason = None
            return None
        box.reason = hindrance.reason
        return hindrance

    def _refuse(self, box: Outbox, reason: str) -> None:
        box.reason = self.refused[box.folder] = reason
