"""What makes a command quick to begin and to end, fewer searches for cycles among its objects; and
what makes Python fit for trials in threads."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


def tune_gc() -> None:
    """Search for cycles seldom. Libraries make objects by the hundred thousand when they are
    imported, none of them garbage: Python's usual searches take a fifth of that time."""
    gc.set_threshold(50_000, 20, 50)


def parse_in_turn() -> None:
    """Have one thread at a time parse Python. CPython counts how deep it is in a syntax tree for a
    whole process, so of two threads that parse one fails with a SystemError, now and then
    (python/cpython#106905). numpy parses whenever it opens a file: its header is Python."""
    import ast

    parse, parsing = ast.parse, threading.RLock()

    @wraps(parse)
    def alone(*args: Any, **options: Any) -> Any:
        with parsing:
            return parse(*args, **options)

    ast.parse = alone


@contextmanager
def reading_many() -> Iterator[None]:
    """Let Python's collector of cyclic garbage rest while thousands of trials are read: none of
    their hundreds of thousands of values is garbage, and it would walk them again and again, for
    half of the time that the reading takes."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def prepare_exit() -> None:
    """Have Python end without taking apart the modules, a large web of cycles, one by one: that
    takes longer than many a command. SQLite files are closed, as it would have done: who closes one
    last brings the log beside it into it."""
    if "sqlalchemy" in sys.modules:
        from sqlalchemy import Engine

        engines = [thing for thing in gc.get_objects() if type(thing) is Engine]
        for engine in engines:
            if engine.dialect.name == "sqlite":
                engine.dispose()
    gc.freeze()
