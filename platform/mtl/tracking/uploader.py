"""The thread that sends what outboxes hold, while whoever records goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from .outbox import Outbox
from .sender import AwayError, RefusedError, Sender

_PACE = 0.5  # seconds between looks at the journals: points that are close go in one call
_TICK = 0.1  # seconds between looks at a caller's reason to wait no longer
_FIRST, _LAST = 2.0, 15.0  # seconds until MLflow is tried again, doubled each time
_log = logging.getLogger(__name__)


class Uploader:
    """Sends watched outboxes, in the order in which they were given, again and again.

    Attributes:
        away: why MLflow cannot be reached; None while it can.
        refused: what MLflow will not take, by the outbox' folder, with the reason. It stays where
            it is; nothing more is sent of it by this process.
    """

    def __init__(self, sender: Sender) -> None:
        self.away: str | None = None
        self.refused: dict[Path, str] = {}
        self._sender = sender
        self._boxes: dict[Path, Outbox] = {}
        self._touched: set[Path] = set()
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
        if self.away is not None or not self._thread.is_alive():
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
            self._round()
            if self.away is not None and not self._ended:
                self._rest()

    def _rest(self) -> None:
        """Leave MLflow alone for a while, which grows."""
        deadline = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST)
        while not self._ended and time.monotonic() < deadline:
            time.sleep(_TICK)

    def _round(self) -> None:
        with self._changed:
            boxes = [box for box in self._boxes.values() if box.folder not in self.refused]
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
                self._send(box)
            finally:
                lock.release()
                self._touch(box)
            if self.away is not None:
                return

    def _touch(self, box: Outbox) -> None:
        with self._changed:
            self._touched.add(box.folder)
            self._changed.notify_all()

    def _send(self, box: Outbox) -> None:
        try:
            self._sender.send(box)
        except AwayError as error:
            self.away = str(error) or "no reason was given"
            return
        except RefusedError as error:
            self.refused[box.folder] = str(error)
        except Exception as error:  # noqa: BLE001 (the edge of a thread: it must go on with others)
            _log.exception("%s cannot be sent", box.folder)
            self.refused[box.folder] = f"{type(error).__name__}: {error}"
        self.away, self._pause = None, _FIRST
