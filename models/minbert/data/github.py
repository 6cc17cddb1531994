"""Files of a public GitHub repository at one commit, each compared with what the commit says."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from ..common.messages import short
from ..errors import InputError

API = "https://api.github.com"
RAW = "https://raw.githubusercontent.com"
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_SHA = re.compile(r"[0-9a-f]{40}")
_TIMEOUT = 30.0  # seconds to connect in, and to wait for the next bytes
_MISSING = (404, 409, 422)  # not there; an empty repository; no such commit


class Blob(NamedTuple):
    """A file as a commit has it: its git hash, and its size in bytes."""

    sha: str
    size: int


class Repository:
    """A public repository.

    Args:
        name: OWNER/REPO.
        api, raw: addresses of GitHub's REST API and of its files.

    Raises:
        InputError: no such name is possible, or an address is none.
    """

    def __init__(self, name: str, api: str = API, raw: str = RAW) -> None:
        if not _NAME.fullmatch(name):
            raise InputError(f"repository: {short(name)} should be OWNER/REPO, as on GitHub")
        self.name, self._api, self._raw = name, _address(api), _address(raw)

    def commit(self, revision: str | None = None) -> str:
        """Return the commit that a branch, tag or commit means; the default branch if none is
        given.

        Raises:
            InputError: no such repository or revision, or no answer.
        """
        about = self._json("", f"there is no such repository at {self._api}, or it is not public")
        revision = revision or self._field(about, "default_branch")
        missing = f"it has no revision {short(revision)}"
        found = self._json(f"/commits/{quote(revision, safe='')}", missing)
        sha = self._field(found, "sha")
        if not _SHA.fullmatch(sha):
            raise self._strange("a commit's sha")
        return sha

    def files(self, commit: str, folder: str) -> dict[str, Blob]:
        """Return the files that lie directly in a folder, by name.

        Raises:
            InputError: no answer, or not all files are in it.
        """
        tree = self._json(f"/git/trees/{commit}?recursive=1", f"it has no commit {commit}")
        if isinstance(tree, dict) and tree.get("truncated"):
            raise self._error("it has more files than GitHub lists")
        try:
            entries = [entry for entry in tree["tree"] if entry["type"] == "blob"]
            blobs = {e["path"]: Blob(str(e["sha"]), int(e["size"])) for e in entries}
        except (KeyError, TypeError, ValueError):
            raise self._strange("a commit's files") from None
        split = {path: path.rpartition("/") for path in blobs}
        return {name: blobs[path] for path, (base, _, name) in split.items() if base == folder}

    def fetch(self, commit: str, path: str, blob: Blob, target: Path) -> str:
        """Write a file to the disk as it arrives; return its sha256, in hex.

        Raises:
            InputError: no answer, or what arrived is not what the commit has.
            OSError: it cannot be written.
        """
        git = hashlib.sha1(b"blob %d\0" % blob.size, usedforsecurity=False)
        digest, size = hashlib.sha256(), 0
        url = f"{self._raw}/{self.name}/{commit}/{quote(path)}"
        missing = f"there is no {path} at {self._raw}"
        with self._answer(url, missing) as answer, target.open("wb") as file:
            for chunk in answer.iter_bytes():
                size += len(chunk)
                if size > blob.size:
                    break
                file.write(chunk)
                git.update(chunk)
                digest.update(chunk)
        if (size, git.hexdigest()) != (blob.size, blob.sha):
            raise self._error(_damage(path, blob, size))
        return digest.hexdigest()

    def _json(self, path: str, missing: str) -> Any:
        url = f"{self._api}/repos/{self.name}{path}"
        with self._answer(url, missing) as answer:
            try:
                return json.loads(answer.read())
            except ValueError:
                kind = answer.headers.get("content-type", "of no kind").partition(";")[0]
                raise self._error(
                    f"{url} answered with something else than JSON ({kind}); does a proxy or a "
                    "login page stand in between?"
                ) from None

    @contextmanager
    def _answer(self, url: str, missing: str) -> Iterator[Any]:
        """Ask for an address; within, what arrives can be read.

        Args:
            missing: what it means if there is no such thing.
        """
        from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # the client's own

        headers = {"User-Agent": "mtl", "Accept": "*/*"}
        try:
            with self._session().stream("GET", url, headers=headers, timeout=_TIMEOUT) as answer:
                if answer.status_code != 200:
                    raise self._error(_refusal(answer, url, missing))
                yield answer
        except OfflineModeIsEnabled:
            raise self._error("HF_HUB_OFFLINE forbids to use the network; unset it") from None
        except HTTPError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise self._error(
                f"{url}: {lines[0]}; see that this machine reaches it (HTTPS_PROXY is respected)"
            ) from None

    def _session(self) -> Any:
        from huggingface_hub import get_session

        try:
            return get_session()
        except (ValueError, ImportError) as error:
            raise self._error(
                f"the proxy that the environment names cannot be used ({error})"
            ) from None

    def _field(self, found: Any, key: str) -> str:
        value = found.get(key) if isinstance(found, dict) else None
        if not isinstance(value, str):
            raise self._strange(key)
        return value

    def _strange(self, what: str) -> InputError:
        return self._error(f"{self._api} answered, but not as GitHub does: no {what} in it")

    def _error(self, why: str) -> InputError:
        return InputError(f"data: {self.name} could not be pulled: {why}")


def _address(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise InputError(f"{short(text)} should be an address: https://HOST or http://HOST:PORT")
    return text.rstrip("/")


def _refusal(answer: Any, url: str, missing: str) -> str:
    code, headers = answer.status_code, answer.headers
    spent = headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers
    if code == 429 or (code == 403 and spent):
        return f"GitHub takes no more requests from this machine for now; {_when(headers)}"
    return missing if code in _MISSING else f"{url} answered {code} {answer.reason_phrase}".rstrip()


def _when(headers: Mapping[str, str]) -> str:
    """Say when a limit ends: one header has seconds from now, the other a time since 1970."""
    for name, start in (("retry-after", 0.0), ("x-ratelimit-reset", time.time())):
        value = headers.get(name, "")
        if value.isascii() and value.isdigit():
            minutes = max(1, math.ceil((int(value) - start) / 60))
            return f"try again in {minutes} minute{'s' if minutes > 1 else ''}"
    return "try again later"


def _damage(path: str, blob: Blob, size: int) -> str:
    if size == blob.size:
        found = "its git hash differs from the commit's"
    else:
        found = f"{'more than ' if size > blob.size else f'{size:,} of '}{blob.size:,} bytes"
    return f"{path} arrived damaged: {found}; pull it again"
