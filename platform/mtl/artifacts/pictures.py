"""Pictures of one training's predictions (PNG), by matplotlib without its global state."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .colours import INK, TASK_COLOURS, ink_on, tint
from .matrices import row_shares

if TYPE_CHECKING:
    from minbert import TaskPredictions
    from minbert.tasks.task import Task

_DPI = 110


def confusion_png(task: Task, matrix: np.ndarray, path: Path) -> None:
    """Draw a confusion matrix: rows true, columns predicted, colour the share of the row."""
    size = len(matrix)
    side = 1.4 + 0.75 * size
    figure = _figure(side + 1.6, side + 1.3)
    _margins(figure, left=1.25, right=0.35, bottom=0.75, top=0.55)
    axes = figure.add_subplot()
    shares = row_shares(matrix)
    colour = TASK_COLOURS[task.name]
    image = np.array([[_rgb(tint(colour, share)) for share in row] for row in shares])
    axes.imshow(image, interpolation="nearest", aspect="equal")
    for (row, column), count in np.ndenumerate(matrix):
        share = float(shares[row, column])
        ink = ink_on(tint(colour, share))
        axes.text(column, row, f"{count}\n{share:.0%}", color=ink, fontsize=12,
                  ha="center", va="center")  # fmt: skip
    labels = [name.replace(" ", "\n") for name in task.classes]
    axes.set_xticks(range(size), labels, fontsize=11)
    axes.set_yticks(range(size), labels, fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class", fontsize=12)
    axes.set_ylabel("true class", fontsize=12)
    right, total = int(np.trace(matrix)), int(matrix.sum())
    axes.set_title(f"{task.title}, dev\n{right} of {total} right ({_share(right, total)})",
                   fontsize=13, loc="left")  # fmt: skip
    figure.savefig(path, dpi=_DPI)


def residuals_png(predictions: TaskPredictions, path: Path) -> None:
    """Draw residuals (predicted minus label) against labels, with their histogram beside."""
    from minbert.tasks.builtin import get_task

    task = get_task(predictions.task)
    residuals = predictions.values - predictions.labels
    colour = TASK_COLOURS[task.name]
    figure = _figure(7.4, 4.6)
    _margins(figure, left=0.95, right=0.15, bottom=0.6, top=0.55)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    left.scatter(predictions.labels, residuals, s=22, color=colour, alpha=0.55, linewidths=0)
    left.set_xlabel("label (0 unrelated, 5 same meaning)", fontsize=12)
    left.set_ylabel("predicted minus label", fontsize=12)
    right.hist(residuals, bins=25, orientation="horizontal", color=colour)
    right.set_xlabel("pairs", fontsize=12)
    for axes in (left, right):
        axes.axhline(0, color=INK, linewidth=1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
        axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
    error = float(np.sqrt(np.mean(residuals**2)))
    title = f"{task.title}, dev\n{len(residuals)} pairs, root mean squared error {error:.2f}"
    left.set_title(title, fontsize=13, loc="left")
    figure.savefig(path, dpi=_DPI)


def history_png(rows: list[tuple[int, float]], title: str, path: Path) -> None:
    """Draw the score of each complete trial by number, and the best so far.

    Args:
        rows: (trial number, score), in the order of the numbers.
    """
    from .colours import SCORE_COLOUR

    numbers, scores = zip(*rows, strict=True)
    figure = _figure(7.4, 4.0)
    _margins(figure, left=0.8, right=0.15, bottom=0.6, top=0.55)
    axes = figure.add_subplot()
    axes.step(numbers, np.maximum.accumulate(scores), where="post", color=INK, label="best so far")
    axes.scatter(numbers, scores, s=40, color=SCORE_COLOUR, label="trial", zorder=3)
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("trial number", fontsize=12)
    axes.set_ylabel("dev score (0 to 1)", fontsize=12)
    axes.tick_params(labelsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.legend(fontsize=11, frameon=False, loc="lower right")
    # A study's name may hold a dollar sign, which begins a formula to matplotlib.
    axes.set_title(title, fontsize=13, loc="left", parse_math=False)
    with warnings.catch_warnings():  # an emoji that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure.savefig(path, dpi=_DPI)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _margins(figure: Figure, *, left: float, right: float, bottom: float, top: float) -> None:
    """Leave room around the axes, in inches. A layout engine would find out how much is needed by
    drawing everything once more: a trial of some seconds would notice."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, wspace=0.06,
        bottom=bottom / height, top=1 - top / height,
    )  # fmt: skip


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
