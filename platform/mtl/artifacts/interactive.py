"""Interactive pages of one training's predictions, each a file that needs nothing else.

They are plain HTML and SVG with twenty lines of script. A plotly figure that works offline
carries 4.5 MB of plotly.js: 14 trials with three figures each would be 200 MB. These are some
tens of kilobytes, and open at once in the sandboxed frame in which MLflow shows them.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from .colours import INK, MUTED, TASK_COLOURS, ink_on, tint
from .matrices import row_shares

if TYPE_CHECKING:
    from minbert import TaskPredictions

_EXAMPLES = 3  # sentences shown for a cell of a confusion matrix
_TEXT = 80  # characters of a sentence that are shown
_MOST_POINTS = 1000  # points drawn in a scatter plot; more could not be told apart

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; color: {ink}; background: #fff; margin: 16px; }}
h1 {{ font-size: 17px; margin: 0; }} p {{ margin: 2px 0 12px; color: {muted}; }}
table {{ border-collapse: separate; border-spacing: 2px; }}
td.cell {{ width: 84px; height: 58px; text-align: center; font-size: 17px; border-radius: 3px; }}
td.cell small {{ display: block; font-size: 12px; }}
th {{ font-weight: 500; padding: 4px 8px; }} th.row {{ text-align: right; }}
th.axis {{ color: {muted}; }} td.rate {{ color: {muted}; text-align: center; font-size: 12px; }}
[data-tip]:hover, [data-tip]:focus {{ outline: 2px solid {ink}; }}
circle {{ r: 4px; fill-opacity: .55; }}
circle:hover {{ fill-opacity: 1; stroke: {ink}; }}
text {{ font: 13px system-ui, sans-serif; fill: {ink}; }} text.soft {{ fill: {muted}; }}
#tip {{ position: fixed; display: none; max-width: 420px; padding: 8px 10px; background: {ink};
  color: #fff; border-radius: 4px; white-space: pre-line; pointer-events: none; font-size: 13px; }}
</style></head><body>
<h1>{title}</h1><p>{subtitle}</p>
{body}
<div id="tip" role="status"></div>
<script>
const tip = document.getElementById("tip");
function show(event) {{
  const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
  tip.style.display = mark ? "block" : "none";
  if (!mark) return;
  tip.textContent = mark.dataset.tip;
  const box = mark.getBoundingClientRect();
  const left = Math.min(box.right + 8, innerWidth - tip.offsetWidth - 8);
  const top = Math.min(box.bottom + 8, innerHeight - tip.offsetHeight - 8);
  tip.style.left = Math.max(4, left) + "px";
  tip.style.top = Math.max(4, top) + "px";
}}
document.addEventListener("mouseover", show);
document.addEventListener("focusin", show);
document.addEventListener("keydown", event => {{
  if (event.key === "Escape") tip.style.display = "none";
}});
</script></body></html>
"""


def confusion_page(predictions: TaskPredictions, matrix: np.ndarray) -> str:
    """Return a page with a confusion matrix; a cell shows some of its sentences on hover."""
    task = _task(predictions)
    shares = row_shares(matrix)
    examples = _examples(predictions)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in task.classes)
    rows = [
        f'<tr><th></th><th class="axis" colspan="{len(matrix)}">predicted class</th></tr>',
        f'<tr><th class="axis">true class</th>{head}<th class="axis">recall</th></tr>',
    ]
    for row, name in enumerate(task.classes):
        cells = "".join(
            _cell(task, matrix, shares, examples, row, column) for column in range(len(matrix))
        )
        recall = _rate(matrix[row, row], matrix[row].sum())
        rows.append(f'<tr><th class="row" scope="row">{escape(name)}</th>{cells}{recall}</tr>')
    precision = "".join(_rate(matrix[i, i], matrix[:, i].sum()) for i in range(len(matrix)))
    rows.append(f'<tr><th class="axis row">precision</th>{precision}</tr>')
    right, total = int(np.trace(matrix)), int(matrix.sum())
    title = f"{task.title}: predicted against true class, dev set"
    subtitle = f"{right} of {total} right ({right / max(total, 1):.1%}). "
    subtitle += "Colour and percentage: share of the true class. Point at a cell for examples."
    return _page(title, subtitle, f"<table>{''.join(rows)}</table>")


def residuals_page(predictions: TaskPredictions) -> str:
    """Return a page with residuals against labels and their histogram; a point shows its pair."""
    task = _task(predictions)
    residuals = predictions.values - predictions.labels
    error = float(np.sqrt(np.mean(residuals**2)))
    title = f"{task.title}: residuals, dev set"
    subtitle = f"{len(residuals)} pairs, root mean squared error {error:.2f}, mean residual "
    subtitle += f"{residuals.mean():+.2f}. Point at a dot for its sentences."
    chosen = _chosen(residuals)
    if len(chosen) < len(residuals):
        subtitle += f" Drawn: the {_MOST_POINTS} largest residuals; the histogram counts all."
    return _page(title, subtitle, _residuals_svg(predictions, residuals, chosen))


def _page(title: str, subtitle: str, body: str) -> str:
    parts = {"title": escape(title), "subtitle": escape(subtitle), "body": body}
    return _PAGE.format(ink=INK, muted=MUTED, **parts)


def _task(predictions: TaskPredictions):
    from minbert.tasks.builtin import get_task

    return get_task(predictions.task)


def _rate(part: int, whole: int) -> str:
    return f'<td class="rate">{f"{part / whole:.0%}" if whole else "none"}</td>'


def _cell(task, matrix, shares, examples, row: int, column: int) -> str:
    count, share = int(matrix[row, column]), shares[row, column]
    colour = tint(TASK_COLOURS[task.name], share)
    text = f"true: {task.classes[row]}\npredicted: {task.classes[column]}\n"
    text += f"{count} of {int(matrix[row].sum())} ({share:.0%})"
    text += "".join(f"\n• {sentence}" for sentence in examples.get((row, column), ()))
    style = f"background:{colour};color:{ink_on(colour)}"
    return (
        f'<td class="cell" tabindex="0" style="{style}" data-tip="{_attribute(text)}">'
        f"{count}<small>{share:.0%}</small></td>"
    )


def _examples(predictions: TaskPredictions) -> dict[tuple[int, int], list[str]]:
    """Return the first few texts of every cell."""
    found: dict[tuple[int, int], list[str]] = {}
    labels = predictions.labels.astype(int)
    for label, guess, text in zip(labels, predictions.classes, predictions.texts, strict=True):
        texts = found.setdefault((int(label), int(guess)), [])
        if len(texts) < _EXAMPLES:
            texts.append(_short(text))
    return found


def _short(text: tuple[str, ...]) -> str:
    return " | ".join(t if len(t) <= _TEXT else t[: _TEXT - 1] + "…" for t in text)


def _attribute(text: str) -> str:
    # Apostrophes may stay between double quotes; sentences are full of them.
    return escape(text, quote=False).replace('"', "&quot;")


def _chosen(residuals: np.ndarray) -> np.ndarray:
    return np.sort(np.argsort(-np.abs(residuals), kind="stable")[:_MOST_POINTS])


class _Scale:
    """A linear axis: data from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low, self._start = low, start
        self._factor = (end - start) / (high - low)

    def __call__(self, value: float) -> float:
        return self._start + (value - self._low) * self._factor


def _residuals_svg(predictions, residuals: np.ndarray, chosen: np.ndarray) -> str:
    low = min(-1.0, float(np.floor(residuals.min())))
    high = max(1.0, float(np.ceil(residuals.max())))
    across, up = _Scale(-0.15, 5.15, 60, 520), _Scale(low, high, 370, 16)
    parts = [_grid(range(int(low), int(high) + 1), up), _labels_axis(across)]
    parts.append(_histogram(residuals, low, high, up, TASK_COLOURS[predictions.task]))
    dots = "".join(_dot(predictions, residuals, i, across, up) for i in chosen)
    parts.append(f'<g fill="{TASK_COLOURS[predictions.task]}">{dots}</g>')
    return (
        '<svg viewBox="0 0 720 430" width="720" height="430" role="img" '
        f'aria-label="Residuals against labels, with histogram">{"".join(parts)}</svg>'
    )


def _grid(ticks: range, up: _Scale) -> str:
    step = 1 if len(ticks) <= 13 else len(ticks) // 8
    lines = "".join(
        f'<line x1="60" x2="700" y1="{up(t):.1f}" y2="{up(t):.1f}" '
        f'stroke="{INK if t == 0 else "#e5e7eb"}"/>'
        f'<text x="52" y="{up(t) + 4:.1f}" text-anchor="end">{f"{t:+d}" if t else 0}</text>'
        for t in ticks
        if t % step == 0
    )
    return lines + (
        '<text transform="rotate(-90)" x="-193" y="16" text-anchor="middle">'
        "predicted minus label</text>"
    )


def _labels_axis(across: _Scale) -> str:
    ticks = "".join(
        f'<text x="{across(t):.1f}" y="392" text-anchor="middle">{t}</text>' for t in range(6)
    )
    middle = across(2.5)
    return ticks + (
        f'<text x="{middle:.1f}" y="416" text-anchor="middle">'
        "label (0 unrelated, 5 same meaning)</text>"
    )


def _histogram(residuals: np.ndarray, low: float, high: float, up: _Scale, colour: str) -> str:
    counts, edges = np.histogram(residuals, bins=25, range=(low, high))
    along = _Scale(0, max(int(counts.max()), 1), 550, 695)
    bars = "".join(
        f'<rect x="550" y="{up(top):.1f}" width="{along(count) - 550:.1f}" '
        f'height="{up(bottom) - up(top) - 1:.1f}" fill="{colour}" '
        f'data-tip="{count} pairs with a residual from {bottom:+.2f} to {top:+.2f}"/>'
        for count, bottom, top in zip(counts, edges, edges[1:], strict=False)
        if count
    )
    return bars + (
        f'<text class="soft" x="695" y="392" text-anchor="end">{counts.max()}</text>'
        '<text class="soft" x="550" y="392">0</text>'
        '<text x="622" y="416" text-anchor="middle">pairs</text>'
    )


def _dot(predictions, residuals: np.ndarray, i: int, across: _Scale, up: _Scale) -> str:
    label, value = float(predictions.labels[i]), float(predictions.values[i])
    text = f"label {label:g}, predicted {value:.2f} ({residuals[i]:+.2f})"
    text += "".join(f"\n• {_short((sentence,))}" for sentence in predictions.texts[i])
    return (
        f'<circle cx="{across(label):.1f}" cy="{up(residuals[i]):.1f}" '
        f'data-tip="{_attribute(text)}"/>'
    )
