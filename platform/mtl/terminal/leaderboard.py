"""The trials of a study as a table, best first, and its settings over their seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..common.text import count
from ..trials.leaderboard import row_label
from ..trials.states import COMPLETE, state_word
from .tables import Column, fitted
from .words import score, with_deviation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN = 20  # rows that are printed
TASK_TITLES = {"sst_accuracy": "SST acc>", "para_accuracy": "PARA acc>", "sts_pearson": "STS r>"}
SHORT_TITLES = {"sst_accuracy": "SST>", "para_accuracy": "PARA>", "sts_pearson": "STS>"}


def leaderboard_table(
    screen: Console, rows: Sequence[Mapping[str, Any]], shown: int = SHOWN
) -> Table:
    """Lay out the best trials of a study that nobody works on; the rest is counted in the caption.

    Where the screen is narrow, the costs go first, then what the order of the rows says, too.
    """
    best = rows[:shown]

    def column(title: str, write: Callable[[Mapping], str], folds: bool = False) -> Column:
        return Column(title, [write(row) for row in best], folds)

    def scores(titles: Mapping[str, str]) -> dict[str, Column]:
        return {key: Column(title, [score(row[key]) for row in best])
                for key, title in titles.items()}  # fmt: skip

    columns = {
        "rank": column("rank>", lambda row: str(row["rank"] or "-")),
        "trial": column("trial>", lambda row: str(row["number"])),
        "parameters": column("parameters", lambda row: row_label(row) + _remark(row), True),
        "score": column("score>", lambda row: score(row["score"])),
        "interval": column("± 95 %>", _half_width),
        **scores(TASK_TITLES),
        "trainable": column("trainable>", lambda row: _or_dash(row["trainable_parameters"], ",")),
        "minutes": column("minutes>", lambda row: _or_dash(row["minutes"], ".1f")),
    }
    table = fitted(
        screen, columns, {"minutes": None}, {"trainable": None}, scores(SHORT_TITLES),
        {"rank": None}, {"interval": None}, styles=_bold_first(best),
    )  # fmt: skip
    if len(rows) > shown:
        table.caption = f"and {count(len(rows) - shown, 'more trial')}"
    return table


def replicates_table(
    screen: Console, groups: Sequence[Mapping[str, Any]], shown: int = SHOWN
) -> Table:
    """Lay out the best settings, each with mean and standard deviation over its seeds."""
    best = groups[:shown]

    def means(key: str, title: str, digits: int = 3) -> Column:
        pairs: list[tuple[float, float | None]] = [group[key] for group in best]
        return Column(title, [with_deviation(*pair, digits) for pair in pairs])

    bare = {key: Column(title, [score(group[key][0]) for group in best])
            for key, title in SHORT_TITLES.items()}  # fmt: skip
    columns = {
        "rank": Column("rank>", [str(rank) for rank, _ in enumerate(best, start=1)]),
        "parameters": Column("parameters", [group["setting"] for group in best], True),
        "seeds": Column("seeds>", [str(len(group["numbers"])) for group in best]),
        "score": means("score", "score>"),
        **{key: means(key, title) for key, title in TASK_TITLES.items()},
        "minutes": means("minutes", "minutes>", 1),
    }
    table = fitted(screen, columns, {"minutes": None}, bare, {"rank": None}, {"seeds": None},
                   styles=["bold"])  # fmt: skip
    table.caption = "mean ± standard deviation over seeds"
    if len(groups) > shown:
        table.caption += f"; and {count(len(groups) - shown, 'more setting')}"
    return table


def _bold_first(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    return ["bold" if row["rank"] == 1 else None for row in rows]


def _remark(row: Mapping[str, Any]) -> str:
    if row["state"] != COMPLETE:
        return f" ({state_word(row['state'], worked_on=False)})"
    remark = f"over {row['over']}" if row["over"] else row["reason"]
    return f" ({remark})" if remark else ""


def _half_width(row: Mapping[str, Any]) -> str:
    if row["score_low"] is None:
        return "-"
    return f"{(row['score_high'] - row['score_low']) / 2:.3f}"


def _or_dash(given: float | None, form: str) -> str:
    return "-" if given is None else format(given, form)
