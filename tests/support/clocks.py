"""Python processes whose clock can be set while they run, and whose workers soon notice silence.

A module ``sitecustomize``, which every Python process loads by itself when its folder is on
PYTHONPATH. What the system's own calls say of the time stays as it is.
"""

import os
from pathlib import Path

_HOOK = """
import time

_true = time.time

def _set():
    with open({file!r}) as file:
        return _true() + float(file.read() or 0)

time.time = _set
"""
_SILENCE = """
import mtl.worker.messages
mtl.worker.messages.SILENCE = {seconds}
"""


class Clock:
    """A clock in a folder; ``environment`` is for the processes that go by it.

    Args:
        silence: the seconds without a word after which their workers leave; None: as it is.
    """

    def __init__(self, folder: Path, silence: float | None = None) -> None:
        folder.mkdir(parents=True)
        self._file = folder / "seconds"
        self.set(0)
        more = "" if silence is None else _SILENCE.format(seconds=silence)
        (folder / "sitecustomize.py").write_text(_HOOK.format(file=str(self._file)) + more)
        before = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([str(folder), *([before] if before else [])])
        self.environment = {"PYTHONPATH": path}

    def set(self, seconds: float) -> None:
        """Set it, so many seconds before or after the true time."""
        part = self._file.with_suffix(".part")
        part.write_text(str(seconds))
        os.replace(part, self._file)
