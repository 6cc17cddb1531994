"""Why MLflow does not take something: it is away, somebody must put something right, or never."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from minbert.errors import InputError

from ..common.faults import away, causes, explain, worded
from ..common.masking import clean
from .artifact_places import SERVE
from .live_store import CHANGED

SENT_THEN = "what waits is sent"


class AwayError(Exception):
    """MLflow cannot be reached now; it may come back by itself, and what waits is sent then.

    Args:
        answers: there is an answer, only not the wanted one: another run may have a better.
    """

    def __init__(self, reason: str, answers: bool = False) -> None:
        super().__init__(reason)
        self.answers = answers


class BlockedError(Exception):
    """Somebody must put something right: a login, a disk, an address. What waits is sent then."""


class RefusedError(Exception):
    """MLflow will never take this: a value that another has, say."""


class GoneError(Exception):
    """The run, or its experiment, was deleted or is not in MLflow."""


class Hindrance(NamedTuple):
    """What keeps everything that waits from being sent.

    Attributes:
        reason: in one line.
        passes: it may pass by itself; else somebody must put it right.
        answers: see `AwayError`.
    """

    reason: str
    passes: bool
    answers: bool = True

    @property
    def words(self) -> str:
        """The same as the beginning of a sentence."""
        return f"MLflow is away ({self.reason})" if self.passes else (
            f"MLflow takes nothing ({self.reason})"
        )  # fmt: skip


LOGIN = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
ADDRESS = "put MLFLOW_TRACKING_URI right"
HOSTS = "start it with --allowed-hosts and the name and port of that address"

# What MLflow has no other answer to another day, and what means that a run or experiment is gone.
_NEVER = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "RESOURCE_DOES_NOT_EXIST")
_LOGIN = ("UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_GONE = re.compile(
    r"must be in the .?active.? state|run with id=\S+ not found|no experiment with id=\S+ exists"
    r"|run '\S+' not found|foreign key constraint",
    re.IGNORECASE,
)
_STATUS = re.compile(
    r"too many (\d{3}) error responses|error code (\d{3}) |\b(\d{3}) (?:Client|Server) Error"
)
_AGAIN_LATER = (408, 425, 429)


def judged(error: Exception, place: Path) -> Exception:
    """Return one of the four errors above for what a call of MLflow's client raised.

    Args:
        place: named where what the machine refuses names no file.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, InputError):
        return BlockedError(str(error))
    text = clean(str(error)).strip()
    if _GONE.search(text) or CHANGED in text:
        return GoneError(_line(text))
    if "is locked" in text:  # SQLite's, by another process
        return AwayError(_line(text))
    if reason := away(error):  # a database server that is MLflow's store
        return AwayError(reason)
    if fault := explain(error, place, SENT_THEN) or worded(text, "its store", SENT_THEN):
        return BlockedError(fault)
    if found := _STATUS.search(text):
        return _by_status(int(next(filter(None, found.groups()))), text)
    if reason := _misled(text):
        return BlockedError(reason)
    code = error.error_code if isinstance(error, MlflowException) else ""
    if code in _LOGIN:
        return BlockedError(f"it refuses the login; {LOGIN}")
    if code in _NEVER:
        return RefusedError(_line(text))
    if isinstance(error, MlflowException | SQLAlchemyError | OSError) or _lacks_connection(error):
        return AwayError(_unreachable(text) or _line(text) or type(error).__name__)
    return RefusedError(f"{type(error).__name__}: {_line(text)}")


def _by_status(status: int, text: str) -> Exception:
    if status == 401:
        return BlockedError(f"it refuses the login (401); {LOGIN}")
    if status == 403 and "Host" in text:
        return BlockedError(f"it refuses to be called by that name (403); {HOSTS}")
    if "no-serve-artifacts" in text:
        return BlockedError(f"it hands no artifacts on; {SERVE}")
    if status == 413:
        return RefusedError("it answers 413: too large for it, or for a proxy in front of it")
    if status >= 500 or status in _AGAIN_LATER:
        return AwayError(f"it answers {status}", answers=True)
    return BlockedError(f"it answers {status}, but not as MLflow does; {ADDRESS}")


def _misled(text: str) -> str | None:
    """Say what is wrong with an address that leads to something else than MLflow."""
    if "not in a valid JSON format" in text:
        return f"something answers there, but not as MLflow does; {ADDRESS}"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        found = re.search(r"certificate verify failed: ([^()']+)", text)
        why = found[1].strip() if found else "not signed by one that is trusted"
        return (
            f"its certificate is not trusted: {why}; name the one that signed it by "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, or put the address right"
        )
    if "SSLError" in text or "SSL:" in text:
        return f"it does not speak TLS as we do; is it http:// and not https://? {ADDRESS}"
    if "Invalid url" in text or "InvalidURL" in text or "InvalidSchema" in text:
        return f"its address cannot be called; {ADDRESS}"
    if "Could not find a registered artifact repository" in text:
        return _line(text)
    return None


def _unreachable(text: str) -> str | None:
    if "Connection refused" in text:
        return "connection refused"
    if "timed out" in text.lower():
        return "it does not answer"
    if "NameResolutionError" in text or "Name or service not known" in text:
        return "there is no host of that name, or no name service"
    return None


def _lacks_connection(error: Exception) -> bool:
    """Say whether what some library for artifacts raised comes from a connection that failed."""
    return any(isinstance(cause, ConnectionError | TimeoutError) for cause in causes(error))


def _line(text: str) -> str:
    return text.splitlines()[0][:300] if text else ""
