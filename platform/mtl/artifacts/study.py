"""What hangs on a study's own run: its leaderboard as files, its figures, its description."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import TASK_METRICS

from ..common.text import markdown, paragraph
from ..study.demo import DEMO_NOTE, is_demo_study
from ..trials.leaderboard import METRIC_TITLES
from .csv_tables import write_rows
from .pictures import history_png
from .study_figures import study_figures

if TYPE_CHECKING:
    import optuna

_SHOWN = 20  # rows of the leaderboard in the description
_SCALE = "Score on the dev sets, 0 to 1; higher is better."
_TAG_LENGTH = 7500  # MLflow cuts tags at 8,000 characters

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 16px auto;
  padding: 0 16px; }}
h1 {{ font-size: 20px; }} h2 {{ font-size: 17px; margin: 28px 0 0; }} p {{ color: #6b7280; }}
</style></head><body><h1>{title}</h1><p>{subtitle}</p>
<script>{plotly}</script>
{figures}
</body></html>
"""


def write_study_files(rows: list[dict[str, Any]], study: optuna.Study, folder: Path) -> None:
    """Write leaderboard.csv, leaderboard.md, study.html and, with any score, history.png.

    Args:
        rows: the leaderboard of the study.
    """
    write_rows(rows, folder / "leaderboard.csv")
    table = f"# {markdown(study.study_name)}\n\n{markdown_table(rows)}\n"
    (folder / "leaderboard.md").write_text(table, encoding="utf-8")
    page = study_page(study, is_demo_study(study.user_attrs.get("settings"), rows))
    (folder / "study.html").write_text(page, encoding="utf-8")
    scores = sorted((row["number"], row["score"]) for row in rows if row["rank"] is not None)
    if scores:
        history_png(scores, f"{study.study_name}: score by trial", folder / "history.png")


def describe_study(rows: list[dict[str, Any]], study: optuna.Study) -> str:
    """Return the study's description in Markdown: what was searched, best trial, leaderboard."""
    attributes = study.user_attrs
    parts = [paragraph(attributes.get("description") or study.study_name)]
    if is_demo_study(study.user_attrs.get("settings"), rows):
        parts.append(f"*{DEMO_NOTE}*")
    searched = _keys(rows)
    if searched:
        parts.append("**Searched:** " + ", ".join(f"`{key}`" for key in searched))
    parts.append(f"**Trials:** {_counts(rows)}")
    if rows and rows[0]["rank"] == 1:
        parts.append(f"**Best:** {_best(rows[0])}")
    shown = min(_SHOWN, len(rows))
    # The table is what grows: fewer rows where long values would run over the tag's length.
    while len(text := _with_table(parts, rows, shown)) > _TAG_LENGTH and shown:
        shown -= 1
    return text[:_TAG_LENGTH]


def leaderboard_table(rows: list[dict[str, Any]]) -> dict[str, list]:
    """Return the leaderboard in the form in which MLflow shows tables: columns and data."""
    header, cells = _table(rows)
    return {"columns": header, "data": cells}


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Return the leaderboard as a Markdown table."""
    header, cells = _table(rows)
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(markdown(c) for c in line) + " |" for line in lines)


def study_page(study: optuna.Study, demo: bool = False) -> str:
    """Return one HTML page with Optuna's figures of the study; it works offline.

    The figures share one copy of plotly.js (4.8 MB), which is most of the page.
    """
    from plotly.offline import get_plotlyjs

    figures, omitted = study_figures(study)
    parts = [
        f"<h2>{escape(title)}</h2>"
        + figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False})
        for title, figure in figures
    ]
    parts += [f"<p>{escape(reason)}</p>" for reason in omitted]
    return _PAGE.format(
        title=escape(f"Study {study.study_name}"),
        subtitle=escape(DEMO_NOTE if demo else _SCALE),
        plotly=get_plotlyjs() if figures else "",
        figures="\n".join(parts),
    )


def _with_table(parts: list[str], rows: list[dict[str, Any]], shown: int) -> str:
    table = [markdown_table(rows[:shown])] if rows and shown else []
    if shown < len(rows):
        table.append(f"and {len(rows) - shown} more in `leaderboard.csv`")
    files = "Artifacts: `leaderboard.csv`, `leaderboard.md`, figures in `study.html`, `history.png`"
    return "\n\n".join([*parts, *table, files])


def _counts(rows: list[dict[str, Any]]) -> str:
    from collections import Counter

    counts = Counter(row["state"] for row in rows)
    return ", ".join(f"{number} {state}" for state, number in counts.items()) or "none yet"


def _best(row: dict[str, Any]) -> str:
    found = f"trial {row['number']}, score {row['score']:.3f}"
    pairs = [f"`{key}` = {markdown(_cell(value))}" for key, value in row["params"].items()]
    values = ", ".join(pairs)
    run = f", run [`{row['run_id'][:8]}`](#/runs/{row['run_id']})" if row["run_id"] else ""
    return f"{found}{f' ({values})' if values else ''}{run}"


def _table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list]]:
    from ..trials.labels import short_key

    keys = _keys(rows)
    header = ["rank", "trial", *(short_key(key) for key in keys)]
    header += [*METRIC_TITLES.values(), "trainable", "minutes"]
    return [*header, "state"], [_table_row(row, keys) for row in rows]


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row["params"]))


def _table_row(row: dict[str, Any], keys: list[str]) -> list:
    cells = [row["rank"], row["number"], *(row["params"].get(key) for key in keys)]
    cells += [row[name] for name in ("score", *TASK_METRICS, "trainable_parameters")]
    minutes = row["minutes"]
    cells.append(None if minutes is None else round(minutes, 2))
    return [_cell(value) for value in [*cells, row["state"]]]


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return float(f"{value:.4g}") if isinstance(value, float) else value
