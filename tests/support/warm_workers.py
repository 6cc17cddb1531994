"""Worker processes that outlive their study: the next one has no libraries to wait for."""

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from mtl.executors.local import LocalExecutor, _has_room
from mtl.worker.messages import SILENCE, Alive

_start, _close = LocalExecutor._start, LocalExecutor.close
_MOST = 2
# What differs from test to test and no worker reads: its job says where everything is.
_UNREAD = ("MTL_HOME", "MTL_STORAGE", "PYTEST_CURRENT_TEST", "COLUMNS", "LINES")


@dataclass
class _Resting:
    worker: object
    environment: dict[str, str]

    def end(self) -> None:
        self.worker.connection.close()
        self.worker.process.kill()
        self.worker.process.wait()

    def keep_company(self) -> None:
        """Speak to it while no dispatcher does: it would leave."""
        with contextlib.suppress(OSError):
            if _has_room(self.worker.connection):
                self.worker.connection.send(Alive())


class WarmWorkers:
    """Worker processes that wait for a study to be run in this process, and for the one after.

    A study takes those that were started in the environment which its own would have; where there
    is none, it starts one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resting: list[_Resting] = []
        self._environments: dict[int, dict[str, str]] = {}  # by process
        self._over = threading.Event()
        self._sent_away = False

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Have all studies of this process use them, one after another."""
        company = threading.Thread(target=self._keep_company, daemon=True)
        company.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalExecutor, "_start", lambda *args: self._begin(*args))
            patch.setattr(LocalExecutor, "close", lambda executor: self._rest(executor))
            yield
        self._over.set()
        company.join()
        self._end()

    @contextmanager
    def sent_away(self) -> Iterator[None]:
        """Have every worker begin and end with its study, as without a test around it."""
        self._end()
        self._sent_away = True
        yield
        self._sent_away = False

    def _begin(self, executor: LocalExecutor, slot: int) -> None:
        environment = _read(executor._environment(slot))
        if (worker := self._taken(environment, executor.places)) is not None:
            executor._slots[slot] = worker
            return
        with contextlib.nullcontext() if self._sent_away else contextlib.chdir("/"):
            _start(executor, slot)  # not in a test's folder, which may be a disk that goes
        self._environments[executor._slots[slot].process.pid] = environment

    def _taken(self, environment: dict[str, str], places: int):
        with self._lock:
            for one in self._resting:
                fits = one.environment == environment and one.worker.places == places
                if fits and one.worker.process.poll() is None:
                    self._resting.remove(one)
                    return one.worker
        return None

    def _rest(self, executor: LocalExecutor) -> None:
        for slot, worker in list(executor._slots.items()):
            idle = not worker.trials and worker.process.poll() is None
            if idle and not worker.connection.closed and not self._sent_away:
                one = _Resting(
                    executor._slots.pop(slot), self._environments[worker.process.pid]
                )
                with self._lock:
                    self._resting.append(one)
        _close(executor)
        self._end(_MOST)

    def _keep_company(self) -> None:
        while not self._over.wait(SILENCE / 6):
            with self._lock:
                for one in self._resting:
                    one.keep_company()

    def _end(self, but: int = 0) -> None:
        """End those that rest, but for the last so many."""
        with self._lock:
            over = self._resting[: len(self._resting) - but]
            del self._resting[: len(over)]
        for one in over:
            one.end()


def _read(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in _UNREAD}
