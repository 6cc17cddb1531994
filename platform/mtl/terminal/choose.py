"""Which view fits the stream that a study is shown on."""

from __future__ import annotations

from ..dispatch.view import View
from .console import console, drawn_on
from .plain import PlainView, QuietView


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
