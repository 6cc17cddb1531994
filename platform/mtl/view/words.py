"""Words, numbers and tables that every view and command prints the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.tracking import short_key, short_value

if TYPE_CHECKING:
    from rich.table import Table

DEMO_NOTE = "Demo scores mean nothing outside the demo."
SHOWN = 20  # trials of a leaderboard that are printed


def is_demo(config: Mapping[str, Any]) -> bool:
    """Say whether a training uses the generated corpus or the tiny encoder."""
    return "demo" in (config.get("backbone", "demo"), config.get("data.path", "demo"))


def parameters(params: Mapping[str, Any]) -> str:
    """Write the searched keys of a trial in short: ``r=4 α=8``."""
    return " ".join(f"{short_key(key)}={short_value(given)}" for key, given in params.items())


def score(given: float | None, digits: int = 3) -> str:
    """Write a score; a dash where there is none."""
    return "-" if given is None else f"{given:.{digits}f}"


def scores(given: Mapping[str, float]) -> str:
    """Write the scores of one evaluation in one line."""
    return (
        f"score {given['score']:.3f} (SST {given['sst_accuracy']:.3f}, "
        f"PARA {given['para_accuracy']:.3f}, STS {given['sts_pearson']:.3f})"
    )


def ending(number: int, state: str, final: float | None, reason: str | None) -> str:
    """Say in one line how a trial ended."""
    said = f"trial {number} {state}"
    said += "" if final is None else f": score {final:.3f}"
    return said + (f" ({reason})" if reason else "")


def clock(seconds: float) -> str:
    """Write a duration: ``0:42``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 trial``, ``16 trials``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def states(counts: Mapping[str, int]) -> str:
    """Write how many trials are in which state, leaving out the states of none."""
    said = [f"{number} {state}" for state, number in counts.items() if number]
    return ", ".join(said) or "no trials"


def leaderboard_table(rows: Sequence[Mapping[str, Any]], shown: int = SHOWN) -> Table:
    """Lay out the best trials as a table; the rest is counted in its caption."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption_justify="left", pad_edge=False, show_edge=False)
    for name in ("rank", "trial"):
        table.add_column(name, justify="right")
    table.add_column("parameters")
    for name in ("score", "SST acc", "PARA acc", "STS r", "trainable", "minutes"):
        table.add_column(name, justify="right")
    for row in rows[:shown]:
        table.add_row(*_cells(row), style="bold" if row["rank"] == 1 else None)
    if len(rows) > shown:
        table.caption = f"and {count(len(rows) - shown, 'more trial')}"
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    trainable, minutes = row.get("trainable_parameters"), row.get("minutes")
    state = row["state"].lower()
    return [
        str(row["rank"] or "-"),
        str(row["number"]),
        parameters(row["params"]) + ("" if state == "complete" else f" ({state})"),
        score(row.get("score")),
        *(score(row.get(name)) for name in ("sst_accuracy", "para_accuracy", "sts_pearson")),
        "-" if trainable is None else f"{trainable:,}",
        "-" if minutes is None else f"{minutes:.1f}",
    ]
