"""The command line `mtl`: as a process, and in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sysconfig
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

TINY = ("train.epochs=1", "train.steps_per_epoch=3", "train.batch_size=8")
"""A training that takes no time, for `sets`."""
TERMINAL = {"COLUMNS": "110", "LINES": "40"}
"""The size of a terminal, for an environment."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """Standard output, which must be one JSON object on one line and nothing else."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    def refused(self, *words: str) -> None:
        """Assert that the input was refused: exit 2, one line that holds these words."""
        assert self.code == 2, self
        assert self.out == ""
        assert self.err.startswith("mtl: ") and self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err, self.err


def command() -> str:
    """The installed console script."""
    return str(Path(sysconfig.get_path("scripts")) / "mtl")


def mtl_process(folder: Path, *args: object, timeout: float = 240, **env: str) -> Outcome:
    """Run the real `mtl` in a folder, in the environment given beside this process'."""
    done = subprocess.run(
        [command(), *map(str, args)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        cwd=folder,
        env={**os.environ, **env},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def start_mtl(
    folder: Path, *args: str, stderr: int = subprocess.PIPE, **env: str
) -> subprocess.Popen:
    """Start the real `mtl` in a folder; what it prints can be read as it comes."""
    return subprocess.Popen(
        [command(), *args],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
    )


def wait_for(process: subprocess.Popen, words: str) -> None:
    """Read what a process prints up to a line with these words.

    Raises:
        AssertionError: it ended without.
    """
    seen = []
    for line in process.stdout:
        seen.append(line)
        if words in line:
            return
    rest = process.stderr.read() if process.stderr else ""
    raise AssertionError(f"ended without {words!r}: {''.join(seen)} {rest}")


def mtl_here(folder: Path, *args: object, **env: str) -> Outcome:
    """Run a command line in this process, where the libraries are loaded already."""
    out, err = io.StringIO(), io.StringIO()
    code = _run_here(folder, args, env, out, err)
    return Outcome(code, out.getvalue(), err.getvalue())


def drawn_here(folder: Path, *args: object, **env: str) -> str:
    """The same on a pseudo-terminal, of 110 columns where the environment says nothing else;
    return everything that it drew."""
    parent, child = pty.openpty()
    drawn: list[bytes] = []
    reader = threading.Thread(target=lambda: drawn.extend(iter(partial(_read, parent), b"")))
    reader.start()
    try:
        with open(child, "w", encoding="utf-8") as screen:
            code = _run_here(folder, args, {**TERMINAL, **env}, screen, screen)
    finally:
        reader.join()
        os.close(parent)
    text = b"".join(drawn).decode("utf-8")
    assert code == 0, text
    return text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def _run_here(folder: Path, args: tuple, env: dict[str, str], out: TextIO, err: TextIO) -> int:
    from mtl.cli import exits
    from mtl.cli.main import cli

    with (
        patch.dict(os.environ, env),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        return exits.run(cli, [str(arg) for arg in args])


def sets(*pairs: str) -> list[str]:
    """Spell ``--set`` once for each KEY=VALUE."""
    return [word for pair in pairs for word in ("--set", pair)]
