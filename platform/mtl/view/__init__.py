"""What a person sees of a running study: live on a terminal, plain lines in a pipe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..dispatch.view import View
from .plain import PlainView, QuietView

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["PlainView", "QuietView", "busy", "choose_view", "console", "drawn_on"]

_PIPE = 10_000  # columns: nothing is folded or left out for want of room


def console(stderr: bool = False) -> "Console":
    """Return the console to print on: as wide as the terminal; in a pipe nothing is wrapped."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE
    # What is printed is what was given: a label may hold square brackets, or :words:.
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def drawn_on(screen: "Console") -> bool:
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


def choose_view(*, stderr: bool = False) -> View:
    """Return the view that fits the stream: live on a terminal that can be drawn on.

    Args:
        stderr: draw on standard error, because standard output is kept for something else; there,
            without a terminal, only messages are shown.
    """
    screen = console(stderr=stderr)
    if drawn_on(screen):
        from .live import LiveView

        return LiveView(screen)
    return QuietView(screen) if stderr else PlainView(screen)
