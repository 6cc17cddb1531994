"""Notes where the Python processes of a test connect to.

A module ``sitecustomize`` with an audit hook, which every Python process loads by itself when its
folder is on PYTHONPATH. Code that is not Python's (Rust, C) is not seen.
"""

import json
import os
from ipaddress import ip_address
from pathlib import Path

_HOOK = """
import json, os, sys

def _note(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        place = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        place = place[0] if isinstance(place, tuple) else place
        line = json.dumps([event, repr(place) if isinstance(place, bytes) else place])
        number = os.open({file!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(number, line.encode() + b"\\n")
        os.close(number)

sys.addaudithook(_note)
"""
# By these MLflow knows a test or CI, and sends nothing by itself: a test of ours would see nothing.
_TELLTALE = ("PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD")
_HERE = ("localhost", "0.0.0.0", "::")


class Trap:
    """A trap in a folder; ``environment`` is for the processes that are watched."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "connections"
        (folder / "sitecustomize.py").write_text(_HOOK.format(file=str(self._file)))
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(folder), *([before] if before else [])])
        kept = {k: v for k, v in os.environ.items() if k not in _TELLTALE}
        self.environment = kept | {"PYTHONPATH": path}

    @property
    def seen(self) -> list[tuple[str, str]]:
        """Every place that was connected to or looked up."""
        if not self._file.exists():
            return []
        lines = self._file.read_text().splitlines()
        return [tuple(json.loads(line)) for line in lines]

    @property
    def outside(self) -> set[str]:
        """Those of them that are not this machine."""
        return {place for event, place in self.seen if not _is_here(place)}


def _is_here(place: str | None) -> bool:
    if place is None or place in _HERE or place.startswith(("/", "\0", "b'")):  # a local socket
        return True
    try:
        return ip_address(place).is_loopback
    except ValueError:
        return False
