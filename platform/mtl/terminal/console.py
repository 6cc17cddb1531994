"""The console that everything is printed on: a terminal, or a pipe in which nothing is folded."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PIPE = 10_000  # columns: nothing is folded or left out for want of room


def console(stderr: bool = False) -> Console:
    """Return the console to print on: as wide as the terminal; in a pipe nothing is wrapped."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE
    # What is printed is what was given: a label may hold square brackets, or :words:.
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def drawn_on(screen: Console) -> bool:
    """Say whether a screen is a terminal on which lines can be drawn anew."""
    return screen.file.isatty() and not screen.is_dumb_terminal


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Say on the terminal, while it lasts, what a command is busy with; in a pipe say nothing."""
    screen = console(stderr=True)
    if not drawn_on(screen):
        yield
        return
    with screen.status(f"{text} ..."):
        yield
