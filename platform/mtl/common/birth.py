"""Which process is which: by what no clock moves.

A process number is used again, and means another process in another container. The time of a
process' birth in seconds since the epoch is reckoned from the clock, and moves when that is set.
What stays is the boot of the machine, the namespace that process numbers are counted in, and the
ticks from that boot to the birth.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat, counted behind the command's name
_DEAD = ("Z", "X")
_HIDDEN = "hidden"  # there is a process, of somebody else, and no more can be seen of it


class _Here(NamedTuple):
    """What tells apart those whose process numbers mean the same."""

    boot: str
    namespace: str


def mark_of(pid: int) -> str | None:
    """Return a mark that this process, of all that ever were, has alone; None where it cannot be
    known (then only silence tells that a process is gone), or where there is no such process."""
    here, started = _here(), _started(pid)
    return f"{here.boot} {here.namespace} {started}" if here and started else None


def lives(pid: int, mark: str | None) -> bool | None:
    """Say whether the process that had a mark lives; None where that cannot be known from here: it
    was on another machine, in another container, before a restart, or of somebody whose processes
    are hidden."""
    here = _here()
    if mark is None or here is None:
        return None
    place, _, started = mark.rpartition(" ")
    if place != f"{here.boot} {here.namespace}":
        return None
    now = _started(pid)
    return None if now == _HIDDEN else now == started


def exists(pid: int) -> bool:
    """Say whether there is a process of this number here, whoever's; a zombie is one."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _here() -> _Here | None:
    try:
        if os.readlink(_PROC / "self") == str(os.getpid()):  # else it shows another namespace
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            return _Here(boot, os.readlink(_PROC / "self/ns/pid"))
        return None
    except OSError:
        return _Here(socket.gethostname(), "-") if not _PROC.is_dir() else None


def _started(pid: int) -> str | None:
    """When a process was born, in ticks of this boot; None if there is none (a zombie is none)."""
    if not _PROC.is_dir():
        return _created(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return _HIDDEN if exists(pid) else None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in _DEAD else fields[_STARTED]


def _created(pid: int) -> str | None:
    """The same where there is no /proc: macOS notes the time of a birth, and leaves it so."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None
