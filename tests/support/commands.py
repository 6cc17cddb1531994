"""The command line `mtl`: as a process, and in this process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

TINY = ("train.epochs=1", "train.steps_per_epoch=3", "train.batch_size=8")
"""A training that takes no time, for `sets`."""


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
    from mtl.cli import exits
    from mtl.cli.main import cli

    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, env),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = exits.run(cli, [str(arg) for arg in args])
    return Outcome(code, out.getvalue(), err.getvalue())


def sets(*pairs: str) -> list[str]:
    """Spell ``--set`` once for each KEY=VALUE."""
    return [word for pair in pairs for word in ("--set", pair)]
