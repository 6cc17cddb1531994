"""Optuna's figures of a study, as the report and the study's own run show them.

A figure of thousands of trials shows some of them, and says so: a browser takes seconds to draw ten
thousand dots, and nobody tells them apart.
"""

from __future__ import annotations

from copy import copy
from itertools import accumulate, chain
from math import inf
from typing import TYPE_CHECKING, Any

from .axes import DRAWN, dots, log_ticks, thinned
from .colours import INK, SCORE_COLOUR, tint

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

_LINES = 200  # trials in the figure of one line a trial
_FOREST = 300  # trials from which importances are learned
_DARK = "#08306b"
# Named without a `target`: with one, Optuna takes low values to be the better ones.
_SCORE = "dev score"
_FEW = 4  # complete trials below which an importance is noise


def study_figures(study: optuna.Study) -> tuple[list[tuple[str, go.Figure]], list[str]]:
    """Return the figures that say something, and for the others why they are not there."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        return [], ["No trial is complete: there is nothing to draw yet."]
    drawn = _drawn(trials)
    every = len(drawn) == len(trials)
    few = study if every else _study_of(drawn)
    numbers = {} if every else {place: trial.number for place, trial in enumerate(drawn)}
    of = ""
    if not every:
        of = f" ({len(drawn):,} of {len(trials):,} trials: every best, others evenly chosen)"
    figures, omitted = [(f"Score of each trial{of}", _history(few, numbers))], []
    varied = _varied(trials)
    if not varied:
        return _dressed(figures), ["No searched parameter varies: there is nothing to compare."]
    if len(varied) > 1:
        most = f"the best {_LINES} trials" if len(trials) > _LINES else "each trial"
        lines = _parallel(_best_of(trials), varied)
        figures.append((f"Parameters of {most} (one line a trial)", lines))
    figures.append((f"Score by parameter{of}", _slices(few, numbers, varied)))
    if len(varied) > 1:
        whole = [trial for trial in trials if trial.params.keys() >= set(varied)]
        if reason := _why_no_importances(whole):
            omitted.append(reason)
        else:
            chart = _importances(whole, varied)
            figures.append(("How much each parameter matters", chart))
    return _dressed(figures), omitted


def _drawn(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Return as many of the trials as can be told apart, evenly chosen, and all that were better
    than those before them."""
    chosen = {trial.number for trial in thinned(trials, DRAWN)}
    best = accumulate(map(_score, trials), max)
    before = chain([-inf], best)
    return [t for t, least in zip(trials, before, strict=False)
            if t.number in chosen or _score(t) > least]  # fmt: skip


def _score(trial: optuna.trial.FrozenTrial) -> float:
    """Return what a complete trial reached: it has a value."""
    assert trial.value is not None
    return trial.value


def _slices(study: optuna.Study, numbers: dict[int, int], varied: list[str]) -> go.Figure:
    """Draw the score by each parameter. `numbers`: see `_history`."""
    from optuna import visualization

    chart = visualization.plot_slice(study, params=varied, target_name=_SCORE)
    _recolour(chart)
    for trace in chart.data:
        colours = trace.marker.color  # the trials' numbers; of those over a limit one colour
        if not isinstance(colours, str):
            trace.marker.color = [numbers.get(number, number) for number in colours]
    chart.update_traces(marker=dots(len(chart.data[0].x)), marker_line_width=0)
    _tick(chart)
    return chart


def _history(study: optuna.Study, numbers: dict[int, int]) -> go.Figure:
    """Draw the score of each trial, and the best so far.

    Args:
        numbers: of the trials, where those of the study are others.
    """
    from optuna import visualization

    chart = visualization.plot_optimization_history(study, target_name=_SCORE)
    for trace in chart.data:
        trace.x = [numbers.get(number, number) for number in trace.x]
    chart.update_traces(marker=dots(len(chart.data[0].x)), selector={"mode": "markers"})
    chart.update_traces(name="best so far", line_shape="hv", selector={"mode": "lines"})
    chart.update_xaxes(title="trial number")
    chart.update_yaxes(title="dev score, 0 to 1")
    return chart


def _why_no_importances(trials: list[optuna.trial.FrozenTrial]) -> str | None:
    """Say why nothing can be learned of the parameters from trials that have them all."""
    if len(trials) < _FEW:
        needed = f"{_FEW} complete trials that have every parameter"
        return f"Importances need {needed}; there are {len(trials)}."
    if len({trial.value for trial in trials}) == 1:
        return "All trials have the same score: no parameter matters."
    return None


def _importances(trials: list[optuna.trial.FrozenTrial], varied: list[str]) -> go.Figure:
    from optuna import visualization

    # Optuna's default (PED-ANOVA) looks at the best tenth of the trials: of sixteen that is two.
    # fANOVA looks at all of them.
    from optuna.importance import FanovaImportanceEvaluator  # a second: scikit-learn's trees

    few = _study_of(_alike(list(thinned(trials, _FOREST))))  # as many as a forest learns in seconds
    forest = FanovaImportanceEvaluator(seed=0)
    chart = visualization.plot_param_importances(
        few, evaluator=forest, params=varied, target_name=_SCORE
    )
    of = f", {_FOREST} trials" if len(trials) > _FOREST else ""
    chart.update_xaxes(title=f"share of the score's variance that it explains (fANOVA{of})")
    chart.update_yaxes(title=None)
    chart.update_layout(height=140 + 50 * len(varied))
    return chart


def _alike(trials: list[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Return the trials with one range for each parameter: points that came later may have widened
    it, and Optuna compares no trials whose ranges differ."""
    ranges: dict[str, list] = {}
    for trial in trials:
        for key, kind in trial.distributions.items():
            known = ranges.setdefault(key, [])
            if kind not in known:
                known.append(kind)
    whole = {key: _widest(kinds) for key, kinds in ranges.items()}
    alike = [copy(trial) for trial in trials]
    for trial in alike:
        trial.distributions = {key: whole[key] for key in trial.distributions}
    return alike


def _widest(kinds: list[Any]) -> Any:
    """Return the distribution that holds what these numeric ones do; one alone is itself."""
    if len(kinds) == 1:
        return kinds[0]
    return type(kinds[0])(min(kind.low for kind in kinds), max(kind.high for kind in kinds))


def _best_of(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    """Return a study of the best trials alone: more lines than some could not be told apart."""
    best = sorted(trials, key=lambda trial: -_score(trial))[:_LINES]
    return _study_of(sorted(best, key=lambda trial: trial.number))


def _study_of(trials: list[optuna.trial.FrozenTrial]) -> optuna.Study:
    import optuna

    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def _parallel(study: optuna.Study, varied: list[str]) -> go.Figure:
    from optuna import visualization

    chart = visualization.plot_parallel_coordinate(study, params=varied, target_name=_SCORE)
    lines = chart.select_traces(selector={"mode": "lines"})
    for line in (line for line in lines if line.y[0] is not None):  # what the legend shows has none
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
        if axis.type == "log" and trace.x:  # all trials may be over a limit, or none
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
