"""The report's section on the paper: its tables beside ours, and what differs in the setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from .markup import (
    count,
    decimals,
    estimate,
    half_width,
    listing,
    minutes,
    number,
    paragraph,
    table,
    text,
    with_interval,
)
from .paper_tables import (
    PAPER_COLUMNS,
    ROWS_READ,
    Ours,
    PaperRow,
    PaperTable,
    Value,
    printed_errors,
)

if TYPE_CHECKING:
    from .contents import StudyReport

_HEAD = ("", "SST acc>", "PARA acc>", "STS r>", "score>", "minutes>", "trainable>")
_BASE = "bert-base-uncased"
_ERRORS = {"mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R²"}


def paper_section(report: StudyReport) -> str:
    """Return the section as HTML; what it needs and what the study lacks is said."""
    if not report.paper:
        said = "No trial has the configuration of a row of the paper's tables."
        return paragraph(said) + _errors(report)
    how = (
        "Dev scores. Rows are matched by what is computed (mode, LoRA, parallel layers, SMART, "
        "schedule), whatever the budget. Ours have their 95 % intervals: of one trial by "
        "bootstrap over the dev examples, of several seeds Student's interval of their mean, with "
        "± the standard deviation. The paper gives single figures without intervals, so the "
        "difference (ours − paper) has ours alone. Where the data or the budget differ, it "
        "says what the setting costs, not which code is better."
    )
    common = "<h3>What differs in the setting, in all tables</h3>" + listing(_common(report))
    tables = "".join(_one_table(each) for each in report.paper)
    return paragraph(how) + common + tables + _errors(report)


def _one_table(given: PaperTable) -> str:
    title = f"<h3>Table {given.number}: {text(given.title)}</h3>"
    rows = [line for row in given.rows for line in _lines(row)]
    parts = [title, table(_HEAD, rows), paragraph(text(f"The paper's table: {given.note}"), "note")]
    if not given.matched:
        return "".join([*parts, paragraph("None of its rows was run here.")])
    return "".join([*parts, "<h4>What differs in the setting</h4>", _setting(given)])


def _lines(row: PaperRow) -> list[tuple[str, list[str]]]:
    """Return one to three lines: the paper's, ours, and the difference."""
    printed = [number(row.printed[column]) for column in PAPER_COLUMNS]
    cost = [minutes(row.printed["minutes"]), count(row.printed.get("trainable"))]
    label = text(row.label)
    if row.ours is None:
        return [("unrun", [f"{label} <small>paper; not run here</small>", *printed, *cost])]
    ours = row.ours
    gaps = [ours.values[column].minus(row.printed[column]) for column in PAPER_COLUMNS]
    return [
        ("paper", [f"<b>{label}</b> <small>paper</small>", *printed, *cost]),
        ("", [_whose(ours), *_values(list(ours.values.values()), False), *_costs(ours)]),
        ("gap", ["ours − paper", *_values(gaps, True), "", _parameters(row)]),
    ]


def _whose(ours: Ours) -> str:
    trials = ", ".join(map(str, ours.numbers))
    said = f"ours, trial{'s' if len(ours.numbers) > 1 else ''} {trials}"
    best = f" <small>best of {ours.settings} settings</small>" if ours.settings > 1 else ""
    return said + best


def _values(values: Sequence[Value], signed: bool) -> list[str]:
    halves = (half_width(value.low, value.high) for value in values)
    if not signed:
        halves = (value.deviation or half for value, half in zip(values, halves, strict=True))
    places = min(decimals(halves), 3)  # the paper's
    return [_value(value, places, signed) for value in values]


def _value(value: Value, places: int, signed: bool) -> str:
    if value.deviation is None or signed:
        return with_interval(value.value, value.low, value.high, places, signed)
    return f"{number(value.value, places)} <small>± {number(value.deviation, places)}</small>"


def _costs(ours: Ours) -> list[str]:
    return [minutes(ours.minutes), count(ours.trainable)]


def _parameters(row: PaperRow) -> str:
    """Compare parameter counts, which only the paper's encoder lets one do."""
    theirs = row.printed.get("trainable")
    if row.ours is None or theirs is None or row.ours.trainable is None:
        return ""
    if PurePath(str(row.ours.config.get("backbone"))).name != _BASE:
        return "<small>another encoder</small>"
    gap = row.ours.trainable - theirs
    return "equal" if not gap else f"{gap:+,}".replace("-", "−")


def _setting(given: PaperTable) -> str:
    budget = given.differing_budget()
    lines = [_differing(key, *values) for key, values in budget.items()]
    return listing([*lines, _steps(given), _seeds(given)])


def _common(report: StudyReport) -> list[str]:
    """Return what holds for all tables: data, hardware."""
    hardware = (
        "minutes: ours are training and evaluation on the machine of this study. The paper's were "
        "measured on one GPU which it does not name; they cannot be compared."
    )
    return [_data(report), hardware]


def _differing(key: str, theirs: Sequence[Any], ours: Sequence[Any]) -> str:
    values = (", ".join(map(str, values)) for values in (ours, theirs))
    return "{}: ours {}; the paper {}".format(key, *values)


def _steps(given: PaperTable) -> str:
    ours = sorted({_budget(row.ours.config) for row in given.matched if row.ours})
    theirs = sorted({_budget(row.config) for row in given.matched})
    if ours == theirs:
        return f"steps: the same, {'; '.join(ours)}"
    return f"steps: ours {'; '.join(ours)}; the paper {'; '.join(theirs)}"


def _budget(config: Mapping[str, Any]) -> str:
    epochs, steps = config["train.epochs"], config["train.steps_per_epoch"]
    if not steps:
        return f"{epochs} epochs of a whole dataset"
    return f"{epochs} epochs of {steps:,} ({epochs * steps:,} steps)"


def _data(report: StudyReport) -> str:
    if not report.datasets:
        return "data: what ours read is not recorded; the paper's sizes are in its appendix A"
    pairs = []
    for part, rows in report.datasets.items():
        theirs = ROWS_READ.get(part)
        if theirs is None:
            pairs.append(f"{part} {rows:,} (the paper does not say)")
        else:
            pairs.append(f"{part} {rows:,} ({'the same' if rows == theirs else f'{theirs:,}'})")
    path = report.settings["config"].get("data.path")
    where = f"data ({path})" if path else "data"
    return f"{where}: rows, in brackets the paper's: {', '.join(pairs)}"


def _seeds(given: PaperTable) -> str:
    numbers = sorted({len(row.ours.numbers) for row in given.matched if row.ours})
    seeds = " or ".join(map(str, numbers))
    return f"seeds: ours {seeds} a row; the paper one a row, as far as it says"


def _errors(report: StudyReport) -> str:
    """Return table 7: errors of STS, the paper's and those of reference and best trial."""
    best, reference, reason = report.pair
    sides = {"baseline": reference, "best": best}
    if best is None or not best["estimates"].get("sts_mse"):
        return ""
    printed = printed_errors()
    lines = []
    for row in printed["rows"]:
        printed_values = map(row.get, _ERRORS)
        theirs = [f"{mean:.3f} <small>± {spread:.3f}</small>" for mean, spread in printed_values]
        lines.append(("paper", [f"<b>{text(row['label'])}</b> <small>paper</small>", *theirs]))
        lines.append(("", _error_line(sides[row["trial"]], row["trial"])))
    if reference is not None and reference["number"] != 0:
        printed_note = f"Here the baseline is {reason}."
        how_ours = paragraph(text(printed_note), "note")
    else:
        how_ours = ""
    head = ("", *(f"{name}>" for name in _ERRORS.values()))
    how = (
        "Errors on the STS dev set. The paper's are mean ± standard deviation; ours are the "
        "value with its 95 % interval and ± the bootstrap deviation."
    )
    return (
        f"<h3>Table 7: {text(printed['title'])}</h3>{paragraph(how)}{table(head, lines)}"
        + paragraph(text(printed["note"]), "note")
        + how_ours
    )


def _error_line(row: Mapping[str, Any] | None, side: str) -> list[str]:
    if row is None:
        return [f"ours: no {side} trial", *[""] * len(_ERRORS)]
    cells = []
    for name in _ERRORS:
        given = row["estimates"].get(f"sts_{name}")
        deviation = f" <small>± {number(given['deviation'])}</small>" if given else ""
        cells.append(estimate(given, places=3) + deviation)
    return [f"ours, trial {row['number']}", *cells]
