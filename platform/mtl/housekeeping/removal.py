"""What is found in a home, and its removal: never outside of the home, never through a link."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HOUR, DAY = 3600.0, 86400.0
_NEVER = "spool"  # what waits for an absent server, and unfinished runs' artifacts


@dataclass(frozen=True)
class Leftover:
    """One thing that nobody needs any more.

    Attributes:
        kind: checkpoint, training, tokens, corpus, draft, run, artifacts, picture or log.
        what: in words.
        path: where it lies.
        bytes: of its files; of a link its own.
    """

    kind: str
    what: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class Kept:
    """Something that was left alone, and why."""

    path: Path
    why: str


class Removal:
    """The home while it is tidied.

    Attributes:
        home: the home's folder.
        remove: whether what is found is removed, or only listed.
        found: what nobody needs; removed, if that was asked for.
        kept: what was left alone, with the reason.
        failed: what should have been removed and could not be.
    """

    def __init__(self, home: Path, remove: bool) -> None:
        self.home, self.remove = home, remove
        self.found: list[Leftover] = []
        self.kept: list[Kept] = []
        self.failed: list[Kept] = []
        self._now = time.time()

    def children(self, folder: Path) -> list[Path]:
        """Return what lies in a folder of the home, by name. Links are named and not followed."""
        if self._linked(folder) or not folder.is_dir():
            return []
        entries = sorted(folder.iterdir())
        return [entry for entry in entries if not self._linked(entry)]

    def _linked(self, path: Path) -> bool:
        if not path.is_symlink():
            return False
        self.leave(path, "is a link; what it leads to may be elsewhere")
        return True

    def is_old(self, paths: Sequence[Path], seconds: float = HOUR) -> bool:
        """Say whether nothing in these files and folders has been written for so long."""
        newest = max((_newest(path) for path in paths), default=0.0)
        return self._now - newest > seconds

    def touched(self, path: Path, since: float) -> bool:
        """Say whether anything in a file or folder was written since a time (since the epoch)."""
        return _newest(path) >= since

    def leave(self, path: Path, why: str) -> None:
        """Note that something stays, once."""
        kept = Kept(path, why)
        if kept not in self.kept:
            self.kept.append(kept)

    def drop(self, kind: str, what: str, *paths: Path) -> bool:
        """List files or folders that belong together, and remove them if that was asked for.

        Returns:
            Whether they are gone, or would be.

        Raises:
            ValueError: one is not inside the home: a fault of the caller.
        """
        for path in paths:
            if self._leads_out(path):
                self.leave(path, "lies behind a link; what it leads to may be elsewhere")
                return False
        size = sum(_size(path) for path in paths)
        if self.remove:
            try:
                for path in paths:
                    _remove(path)
            except OSError as error:
                self.failed.append(Kept(paths[0], f"cannot be removed: {error.strerror}"))
                return False
        self.found.append(Leftover(kind, what, paths[0], size))
        return True

    def _leads_out(self, path: Path) -> bool:
        """Whether a link is on the way from the home to a path, or the path is one."""
        parts = path.relative_to(self.home).parts
        if not parts or ".." in parts or parts[0] == _NEVER:
            raise ValueError(f"{path} is not to be removed")
        steps = [self.home.joinpath(*parts[: end + 1]) for end in range(len(parts))]
        return any(step.is_symlink() for step in steps)

    def forget_empty(self, folder: Path) -> None:
        """Remove a folder whose last content went just now."""
        if self.remove:
            with contextlib.suppress(OSError):  # something is in it
                folder.rmdir()


def _newest(path: Path) -> float:
    """When something in a file or folder was last written, in seconds since the epoch."""
    try:
        times = [path.lstat().st_mtime]
        if path.is_dir() and not path.is_symlink():
            times += [_newest(Path(entry.path)) for entry in os.scandir(path)]
    except FileNotFoundError:  # it went while we looked
        return 0.0
    return max(times)


def _size(path: Path) -> int:
    try:
        if path.is_symlink() or not path.is_dir():
            return path.lstat().st_size
        return sum(_size(Path(entry.path)) for entry in os.scandir(path))
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)  # a link inside goes, not what it leads to
    else:
        path.unlink(missing_ok=True)
