"""From what the system and the libraries say of a fault of the machine to one clear line.

Room: mtl/common.
"""

import errno
import shutil
import sqlite3

import pytest

from mtl.common.faults import explain


def _wrapped(error: Exception) -> Exception:
    try:
        try:
            raise error
        except Exception as inner:
            raise RuntimeError("An exception is raised during the commit") from inner
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "x", "/a/file"), "/a/file: no space"),
        (OSError(errno.EDQUOT, "x", "/a/file"), "/a/file: your share"),
        (OSError(errno.EROFS, "x", b"/a/file"), "/a/file: cannot be written: the file system is"),
        (OSError(errno.EACCES, "x", "/a/file"), "/a/file: permission denied"),
        (OSError(errno.EIO, "x"), "the disk fails"),
        (OSError(errno.EMFILE, "x"), "too many files"),
        (OSError(errno.EFBIG, "x"), "not permitted to grow"),
        (OSError("1000000 requested and 131056 written"), "no space"),
        (ValueError("Error while serializing: I/O error: x (os error 28)"), "no space"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), "no space"),
        (sqlite3.OperationalError("database or disk is full"), "no space"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written"),
        (sqlite3.DatabaseError("database disk image is malformed"), "is damaged"),
        (sqlite3.OperationalError("disk I/O error"), "the disk fails"),
        (sqlite3.OperationalError("unable to open database file"), "cannot be opened"),
        (sqlite3.OperationalError("database is locked"), "locked by another process"),
    ],
)
def test_faults_are_known_however_they_are_wrapped(tmp_path, error, words):
    for raised in (error, _wrapped(error)):
        line = explain(raised, tmp_path)
        assert words in line and "\n" not in line and "same command again" in line
        assert "/a/file" in line or "a file that was" in line or str(tmp_path) in line


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EISDIR, "x", "/a"),
        PermissionError(errno.EACCES, "a port"),
        sqlite3.OperationalError("no such table: x"),
        ValueError("database or disk is full"),
        ConnectionRefusedError(errno.ECONNREFUSED, "x"),
    ],
)
def test_what_is_no_fault_of_the_machine_is_none(tmp_path, error):
    assert explain(_wrapped(error), tmp_path) is None


def test_a_cause_that_was_hidden_on_purpose_does_not_count(tmp_path):
    try:
        try:
            raise OSError(errno.ENOSPC, "x")
        except OSError:
            raise ValueError("of its own") from None
    except ValueError as error:
        assert explain(error, tmp_path) is None
