"""What hangs on a study's own run: its leaderboard as files, its figures, its description."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..markdown import paragraph, plain
from .charts import dots, log_ticks
from .colours import INK, SCORE_COLOUR, tint
from .export import write_rows
from .figures import history_png
from .rows import SCORES

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

_SHOWN = 20  # rows of the leaderboard in the description
_TAG_LENGTH = 7500  # MLflow cuts tags at 8,000 characters
_LINES = 200  # trials in the figure of one line a trial
_FOREST = 300  # trials from which importances are learned
_DARK = "#08306b"
_FEW = 4  # complete trials below which an importance is noise
_DEMO = "Demo corpus and encoder: these scores mean nothing outside the demo."

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
    table = f"# {plain(study.study_name)}\n\n{markdown_table(rows)}\n"
    (folder / "leaderboard.md").write_text(table, encoding="utf-8")
    (folder / "study.html").write_text(study_page(study), encoding="utf-8")
    scores = sorted((row["number"], row["score"]) for row in rows if row["rank"] is not None)
    if scores:
        history_png(scores, f"{study.study_name}: score by trial", folder / "history.png")


def describe_study(rows: list[dict[str, Any]], study: optuna.Study) -> str:
    """Return the study's description in Markdown: what was searched, best trial, leaderboard."""
    attributes = study.user_attrs
    parts = [paragraph(attributes.get("description") or study.study_name)]
    if attributes.get("profile") == "demo":
        parts.append(f"*{_DEMO}*")
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
    return "\n".join("| " + " | ".join(plain(c) for c in line) + " |" for line in lines)


def study_page(study: optuna.Study) -> str:
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
    demo = study.user_attrs.get("profile") == "demo"
    return _PAGE.format(
        title=escape(f"Study {study.study_name}"),
        subtitle=escape(_DEMO if demo else "Score on the dev sets, 0 to 1; higher is better."),
        plotly=get_plotlyjs() if figures else "",
        figures="\n".join(parts),
    )


def study_figures(study: optuna.Study) -> tuple[list[tuple[str, go.Figure]], list[str]]:
    """Return the figures that say something, and for the others why they are not there."""
    from optuna import visualization
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        return [], ["No trial is complete: there is nothing to draw yet."]
    # No `target`: with one, Optuna takes low values to be the better ones.
    named = {"target_name": "dev score"}
    figures, omitted = [("Score of each trial", _history(study, named))], []
    varied = _varied(trials)
    if not varied:
        return _dressed(figures), ["No searched parameter varies: there is nothing to compare."]
    if len(varied) > 1:
        most = f"the best {_LINES} trials" if len(trials) > _LINES else "each trial"
        lines = _parallel(_best_of(trials), varied, named)
        figures.append((f"Parameters of {most} (one line a trial)", lines))
    by_parameter = visualization.plot_slice(study, params=varied, **named)
    _recolour(by_parameter)
    by_parameter.update_traces(marker=dots(len(trials)), marker_line_width=0)
    _tick(by_parameter)
    figures.append(("Score by parameter", by_parameter))
    if len(varied) > 1 and len(trials) >= _FEW:
        # Optuna's default (PED-ANOVA) looks at the best tenth of the trials: of sixteen that is
        # two. fANOVA looks at all of them.
        from optuna.importance import FanovaImportanceEvaluator  # a second: scikit-learn's trees

        forest = FanovaImportanceEvaluator(seed=0)
        importances = visualization.plot_param_importances(
            _sample_of(study, trials), evaluator=forest, params=varied, **named
        )
        of = f", {_FOREST} trials" if len(trials) > _FOREST else ""
        title = f"share of the score's variance that it explains (fANOVA{of})"
        importances.update_xaxes(title=title)
        importances.update_yaxes(title=None)
        importances.update_layout(height=140 + 50 * len(varied))
        figures.append(("How much each parameter matters", importances))
    elif len(varied) > 1:
        omitted.append(f"Importances need {_FEW} complete trials; there are {len(trials)}.")
    return _dressed(figures), omitted


def _history(study: optuna.Study, named: dict[str, str]) -> go.Figure:
    from optuna import visualization

    chart = visualization.plot_optimization_history(study, **named)
    chart.update_traces(marker=dots(len(chart.data[0].x)), selector={"mode": "markers"})
    chart.update_traces(name="best so far", line_shape="hv", selector={"mode": "lines"})
    chart.update_xaxes(title="trial number")
    chart.update_yaxes(title="dev score, 0 to 1")
    return chart


def _best_of(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    """Return a study of the best trials alone: more lines than some could not be told apart."""
    best = sorted(trials, key=lambda trial: -trial.value)[:_LINES]
    return _study_of(sorted(best, key=lambda trial: trial.number))


def _sample_of(study: optuna.Study, trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    """Return the study, or one of as many trials, evenly chosen, as a forest learns in seconds."""
    if len(trials) <= _FOREST:
        return study
    return _study_of([trials[i * len(trials) // _FOREST] for i in range(_FOREST)])


def _study_of(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    import optuna

    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def _parallel(study: optuna.Study, varied: list[str], named: dict[str, str]) -> go.Figure:
    from optuna import visualization

    chart = visualization.plot_parallel_coordinate(study, params=varied, **named)
    for line in chart.select_traces(selector={"mode": "lines"}):
        line.update(line_width=2.5, opacity=0.85, line_color=tint(_DARK, _shade(line.y[0])))
    _recolour(chart)
    chart.update_annotations(font_size=13, bgcolor="rgba(255, 255, 255, 0.75)")
    return chart


def _recolour(chart: go.Figure) -> None:
    """Begin the colours of dots where they can still be seen on white."""
    scale = [[share, tint(_DARK, _shade(share))] for share in (0.0, 1.0)]
    chart.update_traces(marker_colorscale=scale, selector={"mode": "markers"})


def _tick(chart: go.Figure) -> None:
    """Write whole numbers, not lone digits, along logarithmic axes."""
    for trace in chart.data:
        axis = chart.layout[(trace.xaxis or "x").replace("x", "xaxis", 1)]
        if axis.type == "log":
            axis.update(log_ticks(min(trace.x), max(trace.x)))


def _shade(share: float) -> float:
    return 0.25 + 0.75 * share


def _varied(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """Return the parameters that take more than one value over the trials."""
    values: dict[str, set] = {}
    for trial in trials:
        for key, value in trial.params.items():
            values.setdefault(key, set()).add(value)
    return sorted(key for key, seen in values.items() if len(seen) > 1)


def _dressed(figures: list[tuple[str, go.Figure]]) -> list[tuple[str, go.Figure]]:
    for _, figure in figures:
        # The page's headings are the titles.
        figure.update_layout(
            title=None,
            template="plotly_white",
            margin={"t": 50, "l": 70},
            font={"size": 14, "color": INK},
            colorway=[SCORE_COLOUR, INK],
        )
    return figures


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
    values = ", ".join(f"`{key}` = {plain(_cell(value))}" for key, value in row["params"].items())
    run = f", run [`{row['run_id'][:8]}`](#/runs/{row['run_id']})" if row["run_id"] else ""
    return f"{found}{f' ({values})' if values else ''}{run}"


def _table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list]]:
    from ..naming import short_key

    keys = _keys(rows)
    header = ["rank", "trial", *(short_key(key) for key in keys)]
    header += ["score", "SST accuracy", "PARA accuracy", "STS Pearson", "trainable", "minutes"]
    return [*header, "state"], [_table_row(row, keys) for row in rows]


def _keys(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row["params"]))


def _table_row(row: dict[str, Any], keys: list[str]) -> list:
    cells = [row["rank"], row["number"], *(row["params"].get(key) for key in keys)]
    cells += [row[name] for name in ("score", *SCORES, "trainable_parameters")]
    minutes = row["minutes"]
    cells.append(None if minutes is None else round(minutes, 2))
    return [_cell(value) for value in [*cells, row["state"]]]


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return float(f"{value:.4g}") if isinstance(value, float) else value
