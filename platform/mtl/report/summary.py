"""The report's first section: what a study found, in words, and what it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minbert.tasks.builtin import TASKS

from ..study.demo import DEMO_NOTE, is_demo_study
from ..trials.labels import short_value
from ..trials.leaderboard import METRIC_TITLES, row_label
from ..trials.states import COUNTED, ENDED, WAITING, state_word
from .markup import (
    count,
    decimals,
    definitions,
    estimate,
    half_width,
    number,
    paragraph,
    table,
    text,
)

if TYPE_CHECKING:
    from .contents import StudyReport

_DEMO = f"These are scores of the generated demo corpus or the tiny demo encoder. {DEMO_NOTE}"


def summary(report: StudyReport) -> str:
    """Return what the study found, in words, then what it was."""
    parts = (
        [paragraph(text(_DEMO), "warning")] if is_demo_study(report.settings, report.rows) else []
    )
    return "".join([*parts, *_found(report), _gain_table(report), definitions(_about(report))])


def _found(report: StudyReport) -> list[str]:
    best, reference, reason = report.pair
    if best is None:
        return [paragraph("No trial is complete: there is no score to report yet.", "lead")]
    score = estimate(best["estimates"].get("score")) if best["estimates"] else number(best["score"])
    lines = [f"Best is <b>{trial_name(best)}</b> with a dev score of <b>{score}</b>."]
    lines.append(_against(report, best, reference, text(reason)))
    notes = "In brackets 95 % intervals by bootstrap over the dev examples; differences are paired."
    if len(report.ranked) > 1:
        notes += (
            f" The best of {len(report.ranked):,} trials was chosen on these same examples: its "
            "score and its gain are somewhat too good, which no interval shows."
        )
    return [paragraph(" ".join(lines), "lead"), paragraph(text(notes), "note")]


def _against(
    report: StudyReport, best: Mapping[str, Any], reference: Mapping[str, Any] | None, reason: str
) -> str:
    if reference is None:
        return f"It is compared with nothing: {reason}."
    if report.gain is None:
        gap = number(best["score"] - reference["score"], signed=True)
        lacking = "what an interval needs is missing"
        return f"That is {gap} against {trial_name(reference)}, {reason}; {lacking}."
    gain = report.gain["score"]
    won = f"It gains <b>{estimate(gain, signed=True)}</b> over {trial_name(reference)}, {reason}."
    if gain["stands"]:
        return f"{won} The gain is significant: its 95 % interval excludes 0."
    return f"{won} The gain may be chance: its 95 % interval includes 0."


def trial_name(row: Mapping[str, Any]) -> str:
    """Return a trial's number and setting as HTML."""
    label = row_label(row)
    return text(f"trial {row['number']}" + (f" ({label})" if label else ""))


def _gain_table(report: StudyReport) -> str:
    best, reference, _ = report.pair
    if best is None or reference is None or report.gain is None:
        return ""
    numbers = (f"trial {row['number']}>" for row in (reference, best))
    head = ("", *numbers, "difference>", "significant")
    rows = []
    for name, title in METRIC_TITLES.items():
        known = [row["estimates"].get(name) for row in (reference, best)]
        gain = report.gain[name]
        places = decimals(half_width(e["low"], e["high"]) for e in [*known, gain] if e)
        values = [estimate(given, places) for given in known]
        values += [estimate(gain, places, True), "yes" if gain["stands"] else "no"]
        rows.append([title, *values])
    changed = "; ".join(
        f"{key}: {_shown(old)} → {_shown(new)}" for key, (old, new) in report.changed.items()
    )
    differs = paragraph(f"They differ in {text(changed)}." if changed else "They differ in no key.")
    return table(head, rows) + differs


def _shown(value: Any) -> str:
    return "none" if value is None else short_value(value)


def _about(report: StudyReport) -> list[tuple[str, str]]:
    attributes, fixed = report.study.user_attrs, report.settings["config"]
    config = fixed or (report.rows[0]["config"] if report.rows else {})
    return [
        ("study", text(attributes.get("description") or report.name)),
        ("searched", text(_searched(report))),
        ("profile", text(attributes.get("profile") or "none")),
        ("data", text(_data(report, config))),
        ("backbone", text(config.get("backbone", "differs between trials"))),
        ("budget of a trial", text(_budget(config))),
        ("trials", text(_states(report))),
        ("minutes in all", text(_total_minutes(report))),
    ]


def _searched(report: StudyReport) -> str:
    search = report.settings["search"]
    if not search:
        return f"nothing; a list of {len({_first(row) for row in report.rows})} settings"
    return "; ".join(f"{key} {_range(given)}" for key, given in search.items())


def _first(row: Mapping[str, Any]) -> int:
    return row["number"] if row["replicate_of"] is None else row["replicate_of"]


def _range(given: Any) -> str:
    if not isinstance(given, Mapping):
        return f"one of {', '.join(map(short_value, given))}"
    words = f"{short_value(given['low'])} to {short_value(given['high'])}"
    words += " (logarithmic)" if given.get("log") else ""
    return words + (f" by {short_value(given['step'])}" if given.get("step") else "")


def _data(report: StudyReport, config: Mapping[str, Any]) -> str:
    path = config.get("data.path", "differs between trials")
    rows = [
        f"{task.name.upper()} {count(report.datasets.get(f'{task.name}/train'))} / "
        f"{count(report.datasets.get(f'{task.name}/dev'))}"
        for task in TASKS
    ]
    return f"{path}; rows train / dev: {', '.join(rows)}" if report.datasets else path


def _budget(config: Mapping[str, Any]) -> str:
    epochs, steps = config.get("train.epochs"), config.get("train.steps_per_epoch")
    if epochs is None or steps is None:
        return "differs between trials"
    each = f"{steps:,} steps" if steps else "a whole dataset"
    total = f" = {epochs * steps:,} steps" if steps else ""
    return (
        f"{epochs} epochs × {each}{total}; batch size {config.get('train.batch_size')}, "
        f"learning rate {short_value(config.get('train.lr'))}"
    )


def _states(report: StudyReport) -> str:
    states = (*COUNTED, WAITING)
    counts = {state_word(state, report.worked_on): report.count(state) for state in states}
    shown = [f"{n:,} {state}" for state, n in counts.items() if n or state in ENDED]
    return ", ".join(shown)


def _total_minutes(report: StudyReport) -> str:
    known = [row["minutes"] for row in report.rows if row["minutes"] is not None]
    if not known:
        return "not recorded"
    return f"{sum(known):,.1f} of training and evaluation in {len(known):,} trials (many at a time)"
