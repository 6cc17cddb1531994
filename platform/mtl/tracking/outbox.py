"""What a run shall get in MLflow, on disk first: no training waits for MLflow, or loses to it.

A run has a folder under ``spool/``. Whoever records appends a line to its journal, which survives
the death of any process; an uploader (`mtl.tracking.uploader`) sends what has not been sent, in
order, and keeps how far it came. The folder goes when the run has ended and MLflow has everything.

    journal.jsonl   one operation a line; its ``op`` is one of those in `mtl.tracking.sender`
    sent            bytes of the journal that MLflow has
    run.json        the run's and the experiment's id, once MLflow has created them
    former          ids of runs that it had before, which MLflow has lost
    reason          why what waits was not sent, while something is known to be in the way
    files/          artifacts, until they are uploaded
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ..trials.states import KILLED

_PATIENCE = 2.0  # seconds that a sender has to let go of an outbox that is removed
_GONE = ".gone"
_log = logging.getLogger(__name__)


class Run(NamedTuple):
    """A run that MLflow knows: its id, and its experiment's."""

    run_id: str
    experiment_id: str | None


class Operation(NamedTuple):
    """A line of a journal, and where the next one begins."""

    fields: dict[str, Any]
    end: int


class Outbox:
    """The folder of one run.

    Appending needs no lock: a line is one write to a file that is opened for appending. Sending
    does, see `sole_sender`.

    Args:
        folder: it need not exist yet; the first line makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def files(self) -> Path:
        """Where artifacts are made that wait to be uploaded."""
        return self.folder / "files"

    @property
    def begun(self) -> bool:
        """Whether anything was ever recorded here."""
        return self._journal.is_file()

    @property
    def run(self) -> Run | None:
        """The run, if MLflow has created it."""
        try:
            return Run(**json.loads((self.folder / "run.json").read_text("utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError):  # cut off by a power cut: it is looked for by its tags
            return None

    def set_run(self, run: Run) -> None:
        """Note what MLflow calls the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / "run.part"
        part.write_text(json.dumps(run._asdict()), "utf-8")
        os.replace(part, self.folder / "run.json")

    def begin_anew(self) -> None:
        """Let everything be sent again, to a run that is to be created: MLflow lost this one."""
        run = self.run
        if run is not None:
            with (self.folder / "former").open("a", encoding="utf-8") as former:
                former.write(f"{run.run_id}\n")
        self.mark_sent(0)
        (self.folder / "run.json").unlink(missing_ok=True)

    @property
    def former(self) -> list[str]:
        """The ids of runs that this one stands for, and that MLflow has lost."""
        return self._text("former").split()

    @property
    def reason(self) -> str | None:
        """Why what waits could not be sent when that was last tried; None: nothing is known."""
        return self._text("reason").strip() or None

    @reason.setter
    def reason(self, reason: str | None) -> None:
        if reason == self.reason:
            return
        with contextlib.suppress(OSError):  # the disk may be what is in the way
            if reason is None:
                (self.folder / "reason").unlink(missing_ok=True)
            else:
                part = self.folder / "reason.part"
                part.write_text(f"{reason}\n", "utf-8")
                os.replace(part, self.folder / "reason")

    def _text(self, name: str) -> str:
        try:
            return (self.folder / name).read_text("utf-8", errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return ""

    def append(self, op: str, **fields: Any) -> None:
        """Record an operation; once this returns, the death of this process cannot lose it.

        Raises:
            OSError: the disk is full, say; what was there before is whole.
        """
        line = json.dumps({"op": op, "time": int(time.time() * 1000), **fields}) + "\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line  # behind a line that was cut off
            _write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def operations(self, start: int = 0) -> Iterator[Operation]:
        """Yield what was recorded from a place on, in order, without lines that were cut off."""
        try:
            journal = self._journal.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with journal:
            journal.seek(start)
            for line in journal:
                if not line.endswith(b"\n"):
                    return  # being written
                start += len(line)
                fields = self._parsed(line)
                if fields is not None:
                    yield Operation(fields, start)

    def _parsed(self, line: bytes) -> dict[str, Any] | None:
        try:
            return json.loads(line) if line.strip() else None
        except ValueError:
            _log.warning("%s: a line that was cut off is left out", self._journal)
            return None

    def waiting(self) -> list[Operation]:
        """What MLflow does not have yet."""
        return list(self.operations(self.sent))

    @property
    def sent(self) -> int:
        """Bytes of the journal that MLflow has."""
        try:
            return int((self.folder / "sent").read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return 0

    def mark_sent(self, end: int) -> None:
        """Note that MLflow has everything up to a place."""
        # One small write in place: it is either there or not, whoever dies.
        descriptor = os.open(self.folder / "sent", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, b"%020d" % end, 0)
        finally:
            os.close(descriptor)

    @property
    def empty(self) -> bool:
        """Whether MLflow has everything."""
        return next(self.operations(self.sent), None) is None

    def points(self) -> set[tuple[str, int]]:
        """The key and step of every metric point that was recorded."""
        return {
            (key, operation.fields["step"])
            for operation in self.operations()
            if operation.fields["op"] == "metrics"
            for key in operation.fields["values"]
        }

    @property
    def closed(self) -> bool:
        """Whether the run has ended for good: it will not go on from a checkpoint."""
        state = None
        for operation in self.operations():
            if operation.fields["op"] == "end":
                state = operation.fields["state"]
            elif operation.fields["op"] == "reopen":
                state = None
        return state is not None and state != KILLED

    def sole_sender(self) -> FileLock | None:
        """Become the only one who sends this run's operations: a held lock, to be released; None
        if another process is at it."""
        return self._locked(0)

    def _locked(self, seconds: float) -> FileLock | None:
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            return None
        if self.begun:
            return lock
        lock.release()  # it was removed a moment ago, and the lock has made the folder again
        with contextlib.suppress(OSError):
            (self.folder / "lock").unlink()
            self.folder.rmdir()
        return None

    def remove(self) -> bool:
        """Remove the folder; False if another process is just sending what is in it."""
        lock = self._locked(_PATIENCE)
        if lock is None:
            return not self.begun
        # Renamed first: nobody shall find a part of it.
        gone = self.folder.with_name(f".{self.folder.name}{_GONE}")
        os.replace(self.folder, gone)
        lock.release()
        shutil.rmtree(gone, ignore_errors=True)
        return True

    @property
    def _journal(self) -> Path:
        return self.folder / "journal.jsonl"


def outboxes(spool: Path) -> list[Outbox]:
    """Every run's folder under a spool. What a killed process left of removed ones goes."""
    for gone in spool.glob(f".*{_GONE}"):
        shutil.rmtree(gone, ignore_errors=True)
    return [Outbox(file.parent) for file in sorted(spool.glob("[!.]*/journal.jsonl"))]


def _write(descriptor: int, data: bytes) -> None:
    """Write all of it: a disk that becomes full takes a part before it refuses."""
    while data:
        data = data[os.write(descriptor, data) :]
