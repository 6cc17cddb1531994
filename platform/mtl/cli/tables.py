"""What the study commands print for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mtl.naming import setting
from mtl.report import row_setting
from mtl.view import console, words
from mtl.view.progress import evaluated_table

from .recorded import STATES

if TYPE_CHECKING:
    from rich.table import Table

    from minbert.reading import FileReport
    from mtl.plan import Plan
    from mtl.spec import StudySpec


def print_studies(
    shipped: Sequence[Mapping[str, Any]], recorded: Sequence[Mapping[str, Any]]
) -> None:
    """Print the studies that can be run and those that were."""
    screen = console()
    table = words.plain_table("study", "profiles", "what it searches")
    for row in shipped:
        table.add_row(row["name"], ", ".join(row["profiles"]) or "-", row["description"])
    screen.print(table)
    if not recorded:
        screen.print("Nothing is recorded here yet. Start with: mtl study run lora_sweep")
        return
    table = words.plain_table("recorded here", "trials>", *(f"{state}>" for state in STATES))
    for row in recorded:
        table.add_row(row["name"], str(row["trials"]), *(str(row[state]) for state in STATES))
    screen.print(table)


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
    from mtl.studyspec import point_key

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
    counts = {state: payload[state] for state in STATES}
    working = payload["dispatcher"]
    if not working:
        counts["unfinished"] = counts.pop("running")
    of = f" of {words.count(payload['total'], 'trial')}" if payload["total"] else ""
    click.echo(f"{payload['study']}: {words.states(counts)}{of}")
    if payload["running_trials"]:
        console().print(evaluated_table(payload["running_trials"]))
    if working:
        left = payload["seconds_left"]
        about = "" if left is None else f", about {words.clock(left)} left"
        click.echo(f"run by   {working}{about}")
    elif payload["running_trials"]:
        click.echo("Nobody works on them; the command that ran the study goes on with them.")
    if payload["best"]:
        best = payload["best"]
        click.echo(f"best     trial {best['number']}, {row_setting(best)}: {best['score']:.3f}")
        _note_demo(best)


def print_best(payload: Mapping[str, Any]) -> None:
    """Print the best trial and what to do with it."""
    best = payload["best"]
    if best is None:
        click.echo(f"{payload['study']}: no trial has ended well yet")
        return
    click.echo(f"{payload['study']}: best is trial {best['number']} of score {best['score']:.4f}")
    for name in ("sst_accuracy", "para_accuracy", "sts_pearson"):
        click.echo(f"  {name:<22}{words.score(best[name], 4)}")
    for key, value in best["params"].items():
        click.echo(f"  {key:<22}{value}")
    click.echo(f"  {'trainable parameters':<22}{best['trainable_parameters']:,}")
    click.echo(f"  {'run':<22}{best['run_id']}")
    _note_demo(best)
    click.echo(f"\nIts predictions: mtl predict {best['run_id']} --data DIR -o DIR")


def _note_demo(row: Mapping[str, Any]) -> None:
    if words.is_demo(row["config"]):
        click.echo(words.DEMO_NOTE)


def print_plan(plan: Plan) -> None:
    """Print what a study would do."""
    profile = f" (profile {plan['profile']})" if plan["profile"] else ""
    click.echo(
        f"{plan['study']}{profile}: {words.count(plan['trials'], 'trial')}, "
        f"{words.count(plan['points'], 'point')} first, then {plan['searched']} by "
        f"{plan['sampler']}; pruner {plan['pruner']}"
        + (f"; each with {plan['replicates']} seeds" if plan["replicates"] > 1 else "")
    )
    if plan["note"]:
        click.echo(plan["note"])
    table = words.plain_table("", "parameters", "trainable>", "total>")
    for row in plan["parameters"]:
        counts = (f"{row['trainable']:,}", f"{row['total']:,}")
        table.add_row(row["what"], setting(row["values"]), *counts)
    console().print(table)
    for name, text in _plan_lines(plan):
        click.echo(f"{name:<12}{text}")


def _plan_lines(plan: Plan) -> list[tuple[str, str]]:
    few, many = plan["steps_per_trial"]
    each = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    threads = words.count(plan["threads"], "thread")
    workers = f"{words.count(plan['jobs'], 'worker')}, {threads} each"
    lines = [
        ("steps", f"{plan['steps']:,} in all, {each} a trial"),
        ("evaluations", f"{plan['evaluations']:,} in all"),
        ("at a time", workers),
    ]
    if plan["seconds"] is None:
        return lines
    return [
        *lines,
        (
            "time",
            f"about {words.clock(plan['seconds'])} ({1000 * plan['seconds_per_step']:.0f} ms a "
            f"step, {plan['eval_seconds']:.1f} s an evaluation of {plan['dev_examples']:,} "
            "examples, measured now)",
        ),
        (
            "memory",
            f"about {_bytes(plan['memory_bytes'])}; a checkpoint is "
            f"{_bytes(plan['checkpoint_bytes'])}",
        ),
    ]


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
