"""The report's figures, by plotly: plain data in, a figure out, or None where it has no point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import TASKS

from ..artifacts.axes import DRAWN, WIDE, dots, log_ticks, thinned
from ..artifacts.colours import INK, SCORE_COLOUR, TASK_COLOURS
from ..tracking import metric_keys
from ..trials.leaderboard import row_label

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .contents import StudyReport

Row = Mapping[str, Any]

OTHERS = "#9ca3af"  # trials that are neither the best nor what it is read against
_FOREST = 30  # trials
_POINTS = 300  # of a curve
_GRID = "#e5e7eb"


def intervals_chart(rows: Sequence[Row]) -> go.Figure | None:
    """Draw the score of the best trials with its 95 % interval, a line each."""
    import plotly.graph_objects as go

    shown = [row for row in rows if row["score_low"] is not None][:_FOREST]
    if len(shown) < 2:
        return None
    names = [escape(f"{_short(row_label(row), 52)}  ({row['number']})") for row in shown]
    chart = go.Figure(
        go.Scatter(
            x=[row["score"] for row in shown],
            y=list(range(len(shown))),
            mode="markers",
            marker={"size": 9, "color": SCORE_COLOUR},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [row["score_high"] - row["score"] for row in shown],
                "arrayminus": [row["score"] - row["score_low"] for row in shown],
                "color": SCORE_COLOUR,
                "thickness": 2,
            },
            hovertemplate="score %{x:.3f}<extra></extra>",
        )
    )
    chart.update_yaxes(tickvals=list(range(len(shown))), ticktext=names, autorange="reversed")
    chart.update_xaxes(title="dev score, 0 to 1, with 95 % interval")
    return dressed(chart, height=120 + 26 * len(shown), left=20)


def score_curves(report: StudyReport) -> go.Figure | None:
    """Draw the dev score by training step, of every trial that was read."""
    import plotly.graph_objects as go

    if not _several_points(report, metric_keys.dev("score")):
        return None
    chart = go.Figure(_lines(report, metric_keys.dev("score"), SCORE_COLOUR))
    chart.update_xaxes(title="training steps")
    chart.update_yaxes(title="dev score, 0 to 1")
    return dressed(chart, height=440)


def task_curves(report: StudyReport) -> go.Figure | None:
    """Draw each task's dev metric by training step, a panel each."""
    from plotly.subplots import make_subplots

    if not _several_points(report, metric_keys.dev("score")):
        return None
    chart = make_subplots(1, 3, horizontal_spacing=0.1, subplot_titles=[t.title for t in TASKS])
    for column, task in enumerate(TASKS, start=1):
        for line in _lines(report, metric_keys.dev(task.metric), TASK_COLOURS[task.name]):
            line.showlegend = False
            chart.add_trace(line, 1, column)
        measure = "Pearson's r" if task.kind == "regression" else "accuracy"
        chart.update_yaxes(title=f"dev {measure}", row=1, col=column)
        chart.update_xaxes(title="training steps", row=1, col=column)
    return dressed(chart, height=400).update_layout(margin_t=80)


def _several_points(report: StudyReport, key: str) -> bool:
    return any(len(curves.get(key, ())) > 1 for curves in report.curves.values())


def _lines(report: StudyReport, key: str, colour: str) -> list[go.Scatter]:
    """Return a line a trial, what counts drawn last; one of the others stands in the legend."""
    import plotly.graph_objects as go

    best, reference, _ = report.pair
    lines, told = [], False
    for row in reversed([row for row in report.rows if row["number"] in report.curves]):
        points = _thinned(report.curves[row["number"]][key])
        style = {"color": OTHERS, "width": 1.2}
        name, legend, rank = "other trials", not told, 0
        if best is not None and row["number"] == best["number"]:
            style, name = {"color": colour, "width": 3.5}, f"best: {_named(row)}"
            legend, rank = True, 2
        elif reference is not None and row["number"] == reference["number"]:
            style = {"color": INK, "width": 2.5, "dash": "dash"}
            name, legend, rank = f"compared with: {_named(row)}", True, 1
        told = told or rank == 0
        line = go.Scatter(
            x=[step for step, _ in points],
            y=[value for _, value in points],
            mode="lines+markers" if len(points) == 1 else "lines",
            line=style,
            name=name,
            showlegend=legend,
            hovertemplate=f"{_named(row)}<br>step %{{x}}: %{{y:.3f}}<extra></extra>",
        )
        lines.append((rank, line))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def _thinned(points: Mapping[int, float]) -> list[tuple[int, float]]:
    """Return at most some hundred points of a curve, first and last among them."""
    ordered = [(step, round(value, 5)) for step, value in sorted(points.items())]
    stride = -(-len(ordered) // _POINTS)
    return ordered if stride <= 1 else [*ordered[:-1:stride], ordered[-1]]


def _named(row: Row) -> str:
    return escape(f"trial {row['number']}, {_short(row_label(row), 52)}".rstrip(", "))


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def cost_chart(rows: Sequence[Row], cost: str, title: str, unit: float = 1.0) -> go.Figure | None:
    """Draw the score of complete trials against what they cost, with the whole Pareto front; of
    the others at most `DRAWN`, evenly chosen.

    Args:
        cost: the column of the leaderboard.
        title: of its axis, with the unit.
        unit: what the column is divided by.
    """
    import plotly.graph_objects as go

    known = [row for row in rows if row[cost]]
    if len({row[cost] for row in known}) < 2:
        return None
    points = [(row[cost] / unit, row["score"], row) for row in known]
    front = pareto(points)
    chart = go.Figure()
    on = {row["number"] for _, _, row in front}
    others = thinned([p for p in points if p[2]["number"] not in on], DRAWN)
    chart.add_trace(_dots(others, OTHERS, "other trials"))
    chart.add_trace(_dots(front, SCORE_COLOUR, "Pareto front: nothing is cheaper and better"))
    # Numbers of the trials stand at the front, which has few.
    chart.data[1].update(mode="lines+markers+text", textposition="top center", line_shape="hv",
                         cliponaxis=False)  # fmt: skip
    chart.data[0].marker.update(dots(len(points)))
    costs = [x for x, _, _ in points]
    chart.update_xaxes(title=title)
    if max(costs) / min(costs) > WIDE:
        chart.update_xaxes(type="log", **log_ticks(min(costs), max(costs)))
    chart.update_yaxes(title="dev score, 0 to 1")
    return dressed(chart, height=440)


def _dots(points: Sequence[tuple[float, float, Row]], colour: str, name: str) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[x for x, _, _ in points],
        y=[y for _, y, _ in points],
        mode="markers",
        marker={"size": 10, "color": colour},
        line={"color": colour, "width": 1.5},
        text=[str(row["number"]) for _, _, row in points],
        hovertext=[_named(row) for _, _, row in points],
        hovertemplate="%{hovertext}<br>%{x:.4g}, score %{y:.3f}<extra></extra>",
        name=name,
    )


def pareto(points: Sequence[tuple[float, float, Row]]) -> list[tuple[float, float, Row]]:
    """Return the points (cost, score, trial) of which none is cheaper and at least as good."""
    front: list[tuple[float, float, Row]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def dressed(chart: go.Figure, height: int, left: int = 70) -> go.Figure:
    """Give a figure the report's dress: large type, quiet grid, its legend above it."""
    chart.update_layout(
        template="plotly_white",
        height=height,
        margin={"t": 64, "l": left, "r": 20, "b": 60},
        font={"size": 15, "color": INK, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
    )
    chart.update_xaxes(gridcolor=_GRID, automargin=True)
    chart.update_yaxes(gridcolor=_GRID, automargin=True)
    return chart
