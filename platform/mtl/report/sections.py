"""The report's sections but summary and paper: leaderboard, figures, mistakes, what is missing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import TASK_METRICS, TASKS, get_task

from ..artifacts.axes import DRAWN
from ..artifacts.study_figures import study_figures
from ..trials.leaderboard import METRIC_TITLES, grouped, replicated, row_label
from ..trials.states import COMPLETE, state_word
from .charts import cost_chart, dressed, intervals_chart, score_curves, task_curves
from .commands import study_command
from .contents import CURVES
from .markup import (
    commands,
    count,
    decimals,
    half_width,
    listing,
    minutes,
    number,
    paragraph,
    table,
    text,
    with_interval,
)
from .mistakes import confusion_tables, residuals_chart, worst_table
from .summary import trial_name

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .contents import StudyReport

_SHOWN = 30  # rows of the leaderboard
# Two buttons, neither of which sends anything anywhere.
_BUTTONS = [["toImage", "resetScale2d"]]
_CONFIG = {"displaylogo": False, "responsive": True, "modeBarButtons": _BUTTONS}


class Drawing:
    """Figures on their way into the page: counted, so that plotly.js is there if it is needed."""

    def __init__(self) -> None:
        self.drawn = 0

    def figure(self, title: str, chart: go.Figure | None, said: str, else_said: str = "") -> str:
        """Return a figure with title and caption; where there is none, why (or nothing)."""
        if chart is None:
            return paragraph(text(else_said), "note") if else_said else ""
        self.drawn += 1
        html = chart.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"figure-{self.drawn}",
            default_width="100%",
            config=_CONFIG,
        )
        caption = f"<figcaption>{text(said)}</figcaption>" if said else ""
        return f'<figure aria-label="{text(title)}"><h3>{text(title)}</h3>{caption}{html}</figure>'


# ---- leaderboard -------------------------------------------------------------------------------


def leaderboard_section(report: StudyReport) -> str:
    """Return the best trials with their intervals; with further seeds the settings' means too."""
    if not report.rows:
        return paragraph("There are no trials yet.")
    shown = report.rows[:_SHOWN]
    places = {name: _places(shown, name) for name in METRIC_TITLES}
    head = ("rank>", "trial>", "setting", *(f"{title}>" for title in METRIC_TITLES.values()),
            "trainable>", "minutes>", "best epoch>")  # fmt: skip
    parts = [table(head, [_board_row(row, places, report.worked_on) for row in shown])]
    if len(report.rows) > len(shown):
        more = len(report.rows) - len(shown)
        parts.append(paragraph(f"And {more:,} more trials; mtl study export has all.", "note"))
    if replicated(report.rows):
        parts.append("<h3>By setting, over seeds</h3>")
        parts.append(_seeds_table(report))
    return "".join(parts)


def _places(rows: Sequence[Mapping[str, Any]], name: str) -> int:
    known = [row["estimates"].get(name) for row in rows]
    return decimals(half_width(given["low"], given["high"]) for given in known if given)


def _board_row(
    row: Mapping[str, Any], places: Mapping[str, int], worked_on: bool
) -> tuple[str, list[str]]:
    word = text(state_word(row["state"], worked_on))
    state = "" if row["state"] == COMPLETE else f" <small>{word}</small>"
    cells = [str(row["rank"] or "–"), str(row["number"]), text(row_label(row)) + state]
    for name in METRIC_TITLES:
        given = row["estimates"].get(name, {})
        cells.append(with_interval(row[name], given.get("low"), given.get("high"), places[name]))
    cells += [count(row["trainable_parameters"]), minutes(row["minutes"])]
    cells.append("–" if row["best_epoch"] is None else str(row["best_epoch"]))
    return ("best" if row["rank"] == 1 else "", cells)


def _seeds_table(report: StudyReport) -> str:
    head = (
        "rank>",
        "setting",
        "seeds>",
        *(f"{title}>" for title in METRIC_TITLES.values()),
        "minutes>",
    )
    rows = []
    for rank, group in enumerate(grouped(report.rows)[:_SHOWN], start=1):
        values = [_with_deviation(group[name]) for name in ("score", *TASK_METRICS)]
        seeds = str(len(group["numbers"]))
        cells = [str(rank), text(group["setting"]), seeds, *values, minutes(group["minutes"][0])]
        rows.append(("best" if rank == 1 else "", cells))
    return table(head, rows) + paragraph("Mean ± standard deviation over seeds.", "note")


def _with_deviation(given: tuple[float, float | None]) -> str:
    centre, deviation = given
    if deviation is None:
        return number(centre)
    return f"{number(centre)} <small>± {number(deviation)}</small>"


# ---- figures -----------------------------------------------------------------------------------


def figures_section(report: StudyReport, drawing: Drawing) -> str:
    """Return the figures that say something, and why the others are not there."""
    parts = [
        drawing.figure(
            "Scores and how sure they are",
            intervals_chart(report.ranked),
            "The best trials, in brackets their numbers. Where two intervals overlap widely, the "
            "order may be chance; mtl study compare pairs two trials.",
        )
    ]
    shown, omitted = study_figures(report.study)
    for title, chart in shown:
        height = chart.layout.height or 440
        parts.append(drawing.figure(title, dressed(chart, height=height), ""))
    parts += [paragraph(text(reason), "note") for reason in omitted]
    parts += _curves(report, drawing)
    parts += _costs(report, drawing)
    return "".join(parts) + _against(report, drawing)


def _curves(report: StudyReport, drawing: Drawing) -> list[str]:
    known = len([row for row in report.rows if row["score"] is not None])
    which = f"the best {CURVES} of {known:,} trials" if known > CURVES else "all trials"
    said = f"Dev score at each evaluation, of {which} that have any."
    by_task = "The best trial in the task's colour, dashed what it is compared with."
    why = (
        "There are no learning curves: no trial was evaluated more than once."
        if report.curves or not known
        else "There are no learning curves: they could not be read (see Skipped or missing)."
    )
    return [
        drawing.figure("Learning curves", score_curves(report), said, why),
        drawing.figure("Learning curves by task", task_curves(report), by_task),
    ]


def _costs(report: StudyReport, drawing: Drawing) -> list[str]:
    rows = report.ranked
    which = "Complete trials"
    if len(rows) > DRAWN:
        which = f"Of {len(rows):,} complete trials the front and {DRAWN:,} others, evenly chosen"
    said = f"{which}. Numbers name the front: trials of which none is cheaper and better."
    time = cost_chart(rows, "minutes", "minutes of training and evaluation")
    size = cost_chart(rows, "model_bytes", "saved model, megabytes", 1e6)
    no_time = "There are not two complete trials of different length: no score against time."
    no_size = "There are not two saved models of different size: no score against size."
    return [
        drawing.figure("Score against time", time, said, no_time),
        drawing.figure("Score against size on disk", size, said, no_size),
    ]


def _against(report: StudyReport, drawing: Drawing) -> str:
    """Return confusion matrices and residuals of the best trial and its reference."""
    best, reference, _ = report.pair
    if best is None or reference is None:
        return ""
    rows = {"compared": reference, "best": best}
    if any(row["number"] not in report.predictions for row in rows.values()):
        said = "Confusion matrices and residuals need the dev predictions of both trials."
        return paragraph(said, "note")
    titles = [f"trial {reference['number']}", f"trial {best['number']}, the best"]
    sides = [report.predictions[row["number"]] for row in rows.values()]
    parts = []
    for task in TASKS:
        pair = (titles[0], sides[0][task.name]), (titles[1], sides[1][task.name])
        if task.classes:
            said = (
                "Shares of the true class, counts below. The difference is best minus compared, "
                "in percentage points of the true class."
            )
            parts.append(f"<h3>{text(task.title)}: confusion matrices, dev</h3>")
            parts += [paragraph(said, "note"), confusion_tables(pair)]
        else:
            said = "Above 0 the model takes a pair to be more similar than people do."
            chart = residuals_chart(pair)
            parts.append(drawing.figure(f"{task.title}: residuals, dev", chart, said))
    return "".join(parts)


# ---- the end -----------------------------------------------------------------------------------


def worst_section(report: StudyReport) -> str:
    """Return the best trial's worst mistakes on the dev sets."""
    best = report.pair.best
    if best is None or not report.worst:
        return paragraph("There are no predictions to look at.")
    how = "the largest errors first, and among equal ones those that the model was surest of"
    parts = [paragraph(f"Of {trial_name(best)}, on the dev sets: {how}.")]
    for task, rows in report.worst.items():
        parts.append(f"<h3>{text(get_task(task).title)}</h3>")
        parts.append(worst_table(get_task(task), rows) if rows else paragraph("None."))
    return "".join(parts)


def missing_section(report: StudyReport) -> str:
    """Return what was skipped or could not be read."""
    return listing(report.missing) if report.missing else paragraph("Nothing.")


def commands_section(report: StudyReport) -> str:
    """Return the commands that lead to the study and to this page."""
    made = study_command(report.study, report.rows)
    name = shlex.quote(report.name)
    page = f"mtl study report {name}"
    if made is None:
        said = "No shipped study file has these settings; it was run from a file of its own:"
        return paragraph(said) + commands([f"mtl study run FILE.toml --as {name}", page])
    said = "Rebuilt from the study's settings, which are recorded with it:"
    return paragraph(said) + commands([made, page])
