"""Tables that fit: where a terminal is narrow, what says least is left out; nothing is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .words import plain_table

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, RenderableType
    from rich.table import Table


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        title: stands on the right, as its cells do, if it ends in ``>``.
        cells: from the top.
        folds: whether its cells take several lines where nothing else helps.
        least: columns of the terminal that it takes at least, so that a table which is drawn again
            and again does not jump.
    """

    title: str
    cells: Sequence[Any]
    folds: bool = False
    least: int = 0


def fitted(
    screen: Console,
    columns: Mapping[str, Column],
    *steps: Mapping[str, Column | None],
    styles: Iterable[str | None] = (),
) -> Table:
    """Return the table of these columns as it fits the screen.

    Args:
        columns: by any names.
        steps: taken one after the other until the table fits: columns, by name, to be replaced, or
            to be left out (None). Before the first the gaps become narrower.
        styles: of the rows.
    """
    styles = list(styles)
    table = lay_out(columns.values(), styles=styles)
    if fits(screen, table):
        return table
    for step in ({}, *steps):
        columns = {name: c for name, c in {**columns, **step}.items() if c is not None}
        table = lay_out(columns.values(), narrow=True, styles=styles)
        if fits(screen, table):
            break
    return table


def fits(screen: Console, shown: RenderableType) -> bool:
    """Say whether something fits the screen without being folded."""
    from rich.measure import Measurement

    unbounded = screen.options.update(max_width=1_000_000)
    return Measurement.get(screen, unbounded, shown).maximum <= screen.width


def lay_out(
    columns: Iterable[Column], *, narrow: bool = False, styles: Iterable[str | None] = ()
) -> Table:
    """Return a table of columns; of ``narrow`` gaps if need be."""
    columns, table = list(columns), plain_table()
    if narrow:
        table.padding = (0, 1, 0, 0)
    for title, _, folds, least in columns:
        side: JustifyMethod = "right" if title.endswith(">") else "left"
        table.add_column(title.removesuffix(">"), justify=side, overflow="fold",
                         no_wrap=not folds, min_width=least)  # fmt: skip
    rows = list(zip(*(column.cells for column in columns), strict=True))
    styles = [*styles, *[None] * len(rows)]
    for row, style in zip(rows, styles, strict=False):
        table.add_row(*row, style=style)
    return table
