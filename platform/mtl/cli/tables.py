"""What the study commands print for a person."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ..common.text import count
from ..study.demo import DEMO_NOTE, is_demo
from ..terminal import words
from ..terminal.console import console
from ..terminal.progress import evaluated_table
from ..terminal.tables import Column, fitted
from ..trials.labels import trial_label
from ..trials.leaderboard import METRIC_TITLES, row_label
from ..trials.states import COUNTED, RUNNING, UNFINISHED
from .common import to_predict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from minbert.data.files import FileReport

    from ..dispatch.plan import Plan, Sized
    from ..study.spec import StudySpec


_FAILED_SHOWN = 5


def print_studies(
    shipped: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]
) -> None:
    """Print the studies that can be run and those that were."""
    screen = console()
    table = words.plain_table("study", "profiles", "what it searches")
    for row in shipped:
        table.add_row(row["name"], ", ".join(row["profiles"]) or "-", row["description"])
    screen.print(table)
    screen.print()
    if not recorded:
        screen.print("Nothing is recorded here yet. Start with: mtl study run lora_sweep")
        return
    states = [*COUNTED, UNFINISHED]
    table = words.plain_table("recorded here", "trials>", *(f"{state}>" for state in states))
    for row in recorded:
        counts = _told(row)
        table.add_row(row["name"], str(row["trials"]), *(str(counts[state]) for state in states))
    screen.print(table)


def _told(row: Mapping[str, Any]) -> dict[str, int]:
    """Return the trials by state, those that nobody works on apart from those that run."""
    counts = {state: row[state] for state in (*COUNTED, UNFINISHED)}
    counts[RUNNING] -= counts[UNFINISHED]
    return counts


def data_table(reports: Sequence[FileReport]) -> Table:
    """Lay out what was found in each data file."""
    table = words.plain_table("task", "split", "file", "rows>", "used>", "skipped>")
    for report in reports:
        numbers = (report.rows, report.used, len(report.skipped))
        table.add_row(report.task, report.split, report.file, *(f"{n:,}" for n in numbers))
    return table


def spec_payload(spec: StudySpec) -> dict[str, Any]:
    """Return a study as one JSON object."""
    settings = spec.settings
    return {
        "study": spec.name,
        "profile": spec.profile,
        "description": spec.description,
        "sampler": spec.sampler,
        "pruner": spec.pruner,
        "trials": spec.trials,
        "seed": spec.seed,
        "replicates": spec.replicates,
        "config": settings["config"],
        "search": settings["search"],
        "limits": spec.limits,
        "points": spec.points,
    }


def spec_toml(spec: StudySpec) -> str:
    """Return a study as a study file that means the same without profiles."""
    from ..study.spec import point_key

    payload = spec_payload(spec)
    lines = [f"# {spec.name}" + (f", profile {spec.profile}" if spec.profile else "")]
    for key in ("description", "sampler", "pruner", "trials", "seed", "replicates"):
        lines.append(f"{key} = {_toml(payload[key])}")
    for section in ("config", "search", "limits"):
        if payload[section]:
            lines += ["", f"[{section}]", *_pairs(payload[section])]
    for point in spec.points:
        label = spec.labels.get(point_key(point))
        named = [f"label = {_toml(label)}"] if label else []
        lines += ["", "[[points]]", *named, *_pairs(point)]
    return "\n".join(lines)


def _pairs(table: Mapping[str, Any]) -> list[str]:
    return [f'"{key}" = {_toml(value)}' for key, value in table.items()]


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(v)}" for key, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # its scalars are TOML's too


def print_status(payload: Mapping[str, Any]) -> None:
    """Print how far a study is."""
    working = payload["dispatcher"]
    click.echo(f"{payload['study']}: {words.states(_told(payload), payload['total'])}")
    if payload["running_trials"]:
        screen = console()
        screen.print(evaluated_table(screen, payload["running_trials"]))
    if working:
        left = payload["seconds_left"]
        about = "" if left is None else f", about {words.clock(left)} left"
        click.echo(f"run by   {working}{about}")
    elif payload["running_trials"]:
        command = payload["command"] or "the command that ran it"
        click.echo(f"Nobody works on it now. To continue: {command}")
    unsent = payload["waiting"]
    if unsent["reasons"] or (unsent["runs"] and not working):
        click.echo(f"unsent   {unsent['words']}")
    for row in payload["failed_trials"][:_FAILED_SHOWN]:
        click.echo(f"failed   trial {row['number']}, {row['setting']}: {row['reason']}")
    if (more := len(payload["failed_trials"]) - _FAILED_SHOWN) > 0:
        click.echo(f"         and {more} more: mtl study export {shlex.quote(payload['study'])}")
    if payload["best"]:
        best = payload["best"]
        click.echo(f"best     trial {best['number']}, {row_label(best)}: {best['score']:.3f}")
        _note_demo(best)


def print_best(payload: Mapping[str, Any]) -> None:
    """Print the best trial and what to do with it."""
    best = payload["best"]
    if best is None:
        click.echo(f"{payload['study']}: no trial has ended well yet")
        return
    named = f"trial {best['number']}, {row_label(best)}".rstrip(", ")
    click.echo(f"{payload['study']}: the best is {named}")
    for name, title in METRIC_TITLES.items():
        click.echo(f"  {title:<22}{words.score(best[name], 4)}")
    for key, value in best["params"].items():
        click.echo(f"  {key:<22}{value}")
    click.echo(f"  {'trainable parameters':<22}{best['trainable_parameters']:,}")
    click.echo(f"  {'run':<22}{best['run_id'] or '-'}")
    _note_demo(best)
    if best["run_id"] is None:
        click.echo(f"\nIt has no run in MLflow yet: mtl study sync {shlex.quote(payload['study'])}")
        return
    click.echo(f"\nIts predictions:      {to_predict(best['run_id'], best['config']['data.path'])}")
    click.echo(f"As a model of MLflow: mtl study promote {shlex.quote(payload['study'])}")


def _note_demo(row: Mapping[str, Any]) -> None:
    if is_demo(row["config"]):
        click.echo(DEMO_NOTE)


def print_plan(plan: Plan, spec: StudySpec) -> None:
    """Print what a study would do."""
    profile = f" (profile {plan['profile']})" if plan["profile"] else ""
    click.echo(f"{plan['study']}{profile}: {', '.join(_plan_parts(plan))}")
    if plan["note"]:
        click.echo(plan["note"])
    screen = console()
    screen.print(_sizes_table(screen, plan["parameters"], spec))
    for name, text in _plan_lines(plan):
        click.echo(f"{name:<12}{text}")


def _plan_parts(plan: Plan) -> list[str]:
    parts = [count(plan["trials"], "trial")]
    if plan["points"]:
        first = " first" if plan["searched"] else ""
        parts.append(count(plan["points"], "point") + first)
    if plan["searched"]:
        parts.append(f"{'then ' if plan['points'] else ''}{plan['searched']} by {plan['sampler']}")
    if plan["replicates"] > 1:
        parts.append(f"each with {plan['replicates']} seeds")
    return [*parts, "no pruner" if plan["pruner"] == "none" else f"pruner {plan['pruner']}"]


def _sizes_table(screen: Console, sizes: Sequence[Sized], spec: StudySpec) -> Table:
    """Lay out the parameter counts of each point, then of the ends of what is searched."""
    from ..study.spec import point_key

    labels = [spec.labels.get(point_key(point)) for point in spec.points]
    rows = [(row["what"], row, label) for row, label in zip(sizes, labels, strict=False)]
    small, large = sizes[len(labels) :]
    if spec.search:
        rows += [("search: smallest", small, None), ("search: largest", large, None)]
    elif not rows:
        rows = [("all trials", small, None)]
    shown = [trial_label(row["values"], label) for _, row, label in rows]
    columns = {
        "what": Column("", [what for what, *_ in rows]),
        "setting": Column("parameters", shown, True),
        "trainable": Column("trainable>", [f"{row['trainable']:,}" for _, row, _ in rows]),
        "total": Column("total>", [f"{row['total']:,}" for _, row, _ in rows]),
    }
    return fitted(screen, columns)


def _plan_lines(plan: Plan) -> list[tuple[str, str]]:
    few, many = plan["steps_per_trial"]
    each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    threads = count(plan["threads"], "thread")
    workers = f"{words.at_a_time(plan['jobs'], plan['cohort'])}, {threads} each"
    lines = [
        ("steps", f"{plan['steps']:,} in all, {each} a trial"),
        ("evaluations", f"{plan['evaluations']:,} in all"),
        ("at a time", workers),
    ]
    step, seconds = plan["seconds_per_step"], plan["seconds"]
    memory, checkpoint = plan["memory_bytes"], plan["checkpoint_bytes"]
    if step is None or seconds is None or memory is None or checkpoint is None:
        return lines  # nothing was measured
    return [
        *lines,
        (
            "measured",
            f"{1000 * step:.0f} ms a step, {plan['eval_seconds']:.1f} s an "
            f"evaluation of {plan['dev_examples']:,} examples",
        ),
        ("time", f"about {words.clock(seconds)}{_reckoned(plan)}"),
        ("memory", f"about {_bytes(memory)}; a checkpoint is {_bytes(checkpoint)}"),
    ]


def _reckoned(plan: Plan) -> str:
    return ", if each worker trained one trial at a time" if plan["cohort"] > 1 else ""


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
