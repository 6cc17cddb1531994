"""What the best trial and the one it is read against get wrong: matrices, residuals, examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from minbert.evaluation.metrics import confusion_matrix
from minbert.tasks.builtin import get_task
from minbert.tasks.task import Task

from ..artifacts.colours import INK, TASK_COLOURS, ink_on, tint
from ..artifacts.matrices import row_shares
from ..tracking.run_reader import text_of
from .charts import dressed
from .markup import table, text

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from minbert import TaskPredictions

Sides = tuple[tuple[str, "TaskPredictions"], tuple[str, "TaskPredictions"]]

_LESS = "#6b7280"
_SENTENCE = 90  # characters of a sentence in a figure
_DOTS = 1500  # of a scatter plot


def confusion_tables(sides: Sides) -> str:
    """Return the confusion matrices of two trials side by side, and the second minus the first.

    Args:
        sides: title and predictions of each.
    """
    task = get_task(sides[0][1].task)
    counts = [confusion_matrix(given) for _, given in sides]
    shares = [row_shares(matrix) for matrix in counts]
    parts = [
        _matrix(title, task, _count_cells(task, matrix, share))
        for (title, _), matrix, share in zip(sides, counts, shares, strict=True)
    ]
    moved = 100 * (shares[1] - shares[0])
    parts.append(_matrix("difference, in points", task, _moves(task, moved)))
    return f'<div class="sides">{"".join(parts)}</div>'


def _matrix(title: str, task: Task, cells: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in task.classes)
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>{"".join(row)}</tr>'
        for name, row in zip(task.classes, cells, strict=True)
    )
    kind = "matrix" if len(task.classes) == 2 else "matrix many"
    return (
        f'<table class="{kind}"><caption>{text(title)}</caption>'
        f'<tr><th></th><th colspan="{len(task.classes)}">predicted class</th></tr>'
        f"<tr><th>true class</th>{head}</tr>{rows}</table>"
    )


def _count_cells(task: Task, matrix: np.ndarray, shares: np.ndarray) -> list[list[str]]:
    return [
        [
            _cell(TASK_COLOURS[task.name], share, f"{share:.0%}", f"{count:,}")
            for count, share in zip(row, row_shares_, strict=True)
        ]
        for row, row_shares_ in zip(matrix, shares, strict=True)
    ]


def _moves(task: Task, moved: np.ndarray) -> list[list[str]]:
    """Cells of a difference: in the task's colour what became more, in grey what became less."""
    more, most = TASK_COLOURS[task.name], max(float(np.abs(moved).max()), 1.0)
    return [
        [
            _cell(more if points > 0 else _LESS, abs(points) / most, _points(points))
            for points in row
        ]
        for row in moved
    ]


def _points(points: float) -> str:
    rounded = round(points)
    return f"{rounded:+d}".replace("-", "−") if rounded else "0"


def _cell(colour: str, share: float, large: str, small: str = "") -> str:
    ground = tint(colour, 0.85 * share)
    beneath = f"<small>{small}</small>" if small else ""
    return f'<td style="background:{ground};color:{ink_on(ground)}">{large}{beneath}</td>'


def residuals_chart(sides: Sides) -> go.Figure:
    """Draw residuals against labels of two trials on one scale, and both histograms."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    task = get_task(sides[0][1].task)
    colours = (INK, TASK_COLOURS[task.name])
    residuals = [given.values - given.labels for _, given in sides]
    titles = [
        f"{escape(title)}: RMSE {np.sqrt(np.mean(np.square(error))):.3f}"
        for (title, _), error in zip(sides, residuals, strict=True)
    ]
    chart = make_subplots(1, 3, shared_yaxes=True, column_widths=[0.37, 0.37, 0.26],
                          subplot_titles=[*titles, "both"])  # fmt: skip
    for column, ((title, given), error, colour) in enumerate(
        zip(sides, residuals, colours, strict=True), start=1
    ):
        chart.add_trace(_scatter(given, error, colour), 1, column)
        chart.update_xaxes(title="label (0 unrelated, 5 same)", row=1, col=column)
        steps = {"start": -6, "end": 6, "size": 0.25}
        bars = {"ybins": steps, "marker_color": colour, "opacity": 0.55, "name": escape(title)}
        hover = "%{x} pairs<extra></extra>"
        chart.add_trace(go.Histogram(y=_digits(error), hovertemplate=hover, **bars), 1, 3)
    chart.update_xaxes(title="pairs", row=1, col=3)
    chart.update_yaxes(title="predicted minus label", row=1, col=1)
    chart.add_hline(0, line={"color": INK, "width": 1})
    chart = dressed(chart, height=460)
    chart.update_layout(barmode="overlay", margin_t=80, legend={"y": 1.12})
    return chart


def _scatter(given: TaskPredictions, error: np.ndarray, colour: str) -> go.Scatter:
    import plotly.graph_objects as go

    stride = -(-len(error) // _DOTS)
    chosen = range(0, len(error), max(stride, 1))
    return go.Scatter(
        x=_digits(given.labels[chosen]),
        y=_digits(error[chosen]),
        mode="markers",
        marker={"size": 7, "color": colour, "opacity": 0.5},
        hovertext=[_sentences(given.texts[i]) for i in chosen],
        hovertemplate="label %{x}, residual %{y:+.2f}<br>%{hovertext}<extra></extra>",
        showlegend=False,
    )


def _sentences(texts: tuple[str, ...]) -> str:
    return "<br>".join(escape(sentence[:_SENTENCE]) for sentence in texts)


def _digits(values: np.ndarray) -> list[float]:
    return [round(float(value), 3) for value in values]


def worst_table(task: Task, rows: Sequence[Mapping[str, str]]) -> str:
    """Return a task's worst mistakes as a table: text, label, what was predicted and how surely."""
    head = ["text", "label>", "predicted>"]
    if task.kind == "binary":
        head.append("P(paraphrase)>")
    elif task.classes:
        head.append("P(predicted)>")
    return table(head, [_worst_row(task, row) for row in rows])


def _worst_row(task: Task, row: Mapping[str, str]) -> list[str]:
    cells = ["<br>".join(text(sentence) for sentence in text_of(row, task.name))]
    if not task.classes:
        return [*cells, *(f"{float(row[name]):.2f}" for name in ("label", "prediction"))]
    cells += [text(task.classes[int(row[name])]) for name in ("label", "prediction")]
    return [*cells, f"{float(row['probability']):.2f}"]
