"""A study's report: one HTML file that needs nothing else, to read, to mail and to keep."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError

from ..artifacts.colours import INK, MUTED, SCORE_COLOUR
from ..trials.states import RUNNING, WAITING, state_word
from .contents import StudyReport, gather
from .markup import paragraph, text
from .paper_section import paper_section
from .sections import (
    Drawing,
    commands_section,
    figures_section,
    leaderboard_section,
    missing_section,
    worst_section,
)
from .summary import summary

if TYPE_CHECKING:
    import optuna

    from ..storage.home import Home

_NAME_LENGTH = 80
_STYLE = f"""
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: {INK};
  background: #fff; max-width: 1180px; margin: 0 auto; padding: 16px 20px 60px; }}
h1 {{ font-size: 26px; margin: 8px 0 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 21px; margin: 44px 0 8px; padding-top: 10px; border-top: 2px solid #e5e7eb; }}
h3 {{ font-size: 17px; margin: 28px 0 4px; }} h4 {{ font-size: 15px; margin: 16px 0 0; }}
p {{ margin: 6px 0 10px; max-width: 900px; }} .lead {{ font-size: 18px; }}
.note, figcaption, small, caption, nav {{ color: {MUTED}; font-size: 14px; }}
small {{ font-size: 12.5px; white-space: nowrap; font-weight: normal; }}
.warning {{ border-left: 5px solid {SCORE_COLOUR}; padding: 6px 12px; background: #fdf2f8; }}
nav a {{ margin-right: 14px; }} a {{ color: #0b5394; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; margin: 8px 0; font-size: 15px; }}
th {{ text-align: left; font-weight: 600; border-bottom: 2px solid #d1d5db; padding: 4px 10px; }}
td {{ padding: 4px 10px; border-bottom: 1px solid #eef0f2; vertical-align: top;
  overflow-wrap: anywhere; }}
td:first-child:not(.number) {{ min-width: 6em; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
td.number small {{ display: block; }}
tr.best td {{ font-weight: 600; background: #fdf2f8; }}
tr.paper td {{ border-top: 2px solid #d1d5db; }} tr.gap td {{ background: #f8fafc; }}
tr.unrun td, tr.unrun b {{ color: {MUTED}; }} tr.unrun td {{ border-top: 2px solid #d1d5db; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 4px 18px; margin: 14px 0; }}
dt {{ color: {MUTED}; }} dd {{ margin: 0; overflow-wrap: anywhere; }}
figure {{ margin: 24px 0; }} figure h3 {{ margin: 0; }}
.sides {{ display: flex; flex-wrap: wrap; gap: 10px; align-items: flex-start; }}
.matrix {{ border-collapse: separate; border-spacing: 2px; font-size: 13.5px; }}
.matrix caption {{ text-align: left; white-space: nowrap; color: {INK}; font-weight: 600; }}
.matrix th {{ border: 0; padding: 2px 3px; font-size: 12px; font-weight: 500; }}
.many th {{ max-width: 54px; }}
.matrix th[scope=row] {{ text-align: right; }} .matrix th[scope=col] {{ text-align: center; }}
.matrix td {{ border: 0; text-align: center; min-width: 38px; height: 38px; padding: 2px;
  vertical-align: middle; border-radius: 3px; }}
.matrix td small {{ display: block; color: inherit; font-size: 11px; }}
pre {{ background: #f3f4f6; padding: 10px 12px; overflow-x: auto; font-size: 14px; }}
@media print {{ body {{ max-width: none; }} nav {{ display: none; }} }}
"""
_HINT = '<noscript><p class="note">The figures need JavaScript; the tables do not.</p></noscript>'
_SECTIONS = {
    "summary": "Summary",
    "leaderboard": "Leaderboard",
    "paper": "Beside the paper",
    "figures": "Figures",
    "mistakes": "The best trial's worst mistakes",
    "missing": "Skipped or missing",
    "commands": "How this was made",
}


def report_name(study: str) -> str:
    """Return the file that a study's report goes to: its name, made safe, ``-report.html``."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_.@") else "-" for c in study)
    return f"{safe.lstrip('.-')[:_NAME_LENGTH] or 'study'}-report.html"


def write_report_page(study: optuna.Study, home: Home, file: Path) -> dict[str, Any]:
    """Write the report of a recorded study, which may be running.

    Returns:
        ``study``, ``file``, ``bytes``, ``trials`` (a count), ``best`` and ``compared_with`` (trial
        numbers or None), ``gain`` (by metric, or None), ``missing`` (a line each).

    Raises:
        InputError: the file cannot be written.
    """
    report = gather(study, home)
    page = report_page(report)
    try:
        _replace(file, page)
    except OSError as error:
        raise InputError(f"{file} cannot be written: {error.strerror}") from error
    best, reference, _ = report.pair
    return {
        "study": report.name,
        "file": str(file),
        "bytes": len(page.encode()),
        "trials": len(report.rows),
        "best": best and best["number"],
        "compared_with": reference and reference["number"],
        "gain": report.gain,
        "missing": report.missing,
    }


def report_page(report: StudyReport) -> str:
    """Return the page."""
    drawing = Drawing()
    contents = {
        "summary": summary(report),
        "leaderboard": leaderboard_section(report),
        "paper": paper_section(report),
        "figures": figures_section(report, drawing),
        "mistakes": worst_section(report),
        "missing": missing_section(report),
        "commands": commands_section(report),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title in _SECTIONS.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{contents[key]}</section>'
        for key, title in _SECTIONS.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>Study {text(report.name)}</title><style>{_STYLE}</style>"
        f"{_library(drawing)}</head>\n<body><h1>Study {text(report.name)}</h1>"
        f"{paragraph(text(_when(report)), 'note')}<nav>{links}</nav>{_HINT}{body}</body></html>\n"
    )


# Whatever a sentence of the data were to do to the page: nothing is fetched, nothing is sent.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; form-action 'none'; base-uri 'none'"
)


def _library(drawing: Drawing) -> str:
    """Return plotly.js, 4.8 MB, where it is needed."""
    if not drawing.drawn:
        return ""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _when(report: StudyReport) -> str:
    made = f"As it stood on {datetime.now().astimezone():%Y-%m-%d %H:%M %Z}."
    counts = {state: report.count(state) for state in (RUNNING, WAITING)}
    left = [f"{n:,} {state_word(state, report.worked_on)}" for state, n in counts.items() if n]
    return made + (f" It has not ended ({', '.join(left)})." if left else "")


def _replace(file: Path, page: str) -> None:
    """Write beside, then rename: whoever has the page open never sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
