"""Small disks of their own for tests: real file systems that become full, or read-only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


class Disk:
    """A file system in memory, mounted on a folder.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir()
        refused = self._mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs")
        if refused:
            pytest.skip(f"needs to mount a file system, which is not permitted here: {refused}")

    def fill(self, leave: int = 0) -> None:
        """Write until no byte is left, but for so many bytes."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        filler.write(b"\0" * size)
                except OSError:
                    continue
            if leave:
                os.truncate(filler.fileno(), os.fstat(filler.fileno()).st_size - leave)

    def enlarge(self, megabytes: int) -> None:
        """Give it more room."""
        assert self._mount("-o", f"remount,size={megabytes}m") == ""

    def make_read_only(self) -> None:
        """Let nothing be written any more."""
        assert self._mount("-o", "remount,ro") == ""

    def close(self) -> None:
        """Take it away, whoever still has a file of it open."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)

    def _mount(self, *options: str) -> str:
        try:
            done = subprocess.run(
                ["mount", *options, str(self.path)], capture_output=True, text=True
            )
        except OSError as error:
            return str(error)
        return done.stderr.strip()
