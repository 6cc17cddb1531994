"""Whether a server that was started answers, and why it does not: its own last error."""

from __future__ import annotations

import re
import subprocess
import threading
import time
import urllib.error
from signal import Signals

from ..common.loopback import direct
from ..common.masking import clean

_START_SECONDS = 120.0  # a cold disk and one busy core
_ERROR = re.compile(
    r"(?:\S+ \S+ )?(?:ERROR|CRITICAL|FATAL)\b"  # of a log, with or without its time
    r"|\w[\w.]*(?:Error|Exception)\b"  # the end of a traceback
)
_HARMLESS = re.compile(r"\s|$|.*\b\w*warning\b|\(Background on this error", re.IGNORECASE)


def wait_ready(process: subprocess.Popen, url: str, stop: threading.Event) -> str | None:
    """Wait until a server of this machine answers.

    No proxy is asked, whatever the environment says: the server is our own.

    Args:
        url: what is asked of it; 401 is an answer, by a server that wants the password.
        stop: ends the waiting.

    Returns:
        None if it answers, or a stop was asked for; else what is wrong, as the end of a sentence
        that begins with the server.
    """
    browser = direct()
    deadline = time.monotonic() + _START_SECONDS
    while not stop.is_set():
        if process.poll() is not None:
            return "does not run"
        try:
            with browser.open(url, timeout=2) as answer:
                return None if answer.status == 200 else f"answers {answer.status} at {url}"
        except urllib.error.HTTPError as error:
            with error:
                return None if error.code == 401 else f"answers {error.code} at {url}"
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            if time.monotonic() > deadline:
                return f"does not answer at {url} within {_START_SECONDS:.0f} s"
        stop.wait(0.1)
    return None


def last_words(log: str, exit_code: int | None) -> str:
    """Say in one line why a server ended, or does not answer.

    Args:
        log: what it has printed.
        exit_code: how it ended, as `subprocess` has it; None if it runs.
    """
    lines = [clean(line).rstrip() for line in log.splitlines()]
    errors = [line for line in lines if _ERROR.match(line)]
    if errors:
        return " ".join(errors[-1].split())
    if exit_code is not None and exit_code < 0:
        return f"it was ended by {Signals(-exit_code).name}"
    said = [line for line in lines if not _HARMLESS.match(line)]
    if said:
        return said[-1]
    return "it wrote nothing" if exit_code is None else f"it ended with {exit_code}"
