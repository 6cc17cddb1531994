"""``mtl train``: one tracked training outside any study."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..trials import states
from .common import json_option, print_json, reserved_stdout, set_option, to_predict
from .exits import DONE, FAILED, INTERRUPTED

if TYPE_CHECKING:
    from minbert import Config

    from ..dispatch.train import TrainingResult


@click.command()
@set_option
@click.option(
    "--profile",
    type=click.Choice(["demo", "paper"]),
    help="The recipe: minutes on the demo, or the paper's; default: demo for the demo backbone.",
)
@click.option("--resume", metavar="RUN", help="Go on with an interrupted training.")
@json_option
def train(sets: tuple[str, ...], profile: str | None, resume: str | None, as_json: bool) -> int:
    """Train once, tracked in MLflow under the experiment "train"."""
    from ..dispatch.train import interrupted_config, train_once
    from ..storage.home import Home
    from ..terminal.console import console
    from ..terminal.training import TrainingView
    from ..tracking.run_models import model_address

    if resume and (sets or profile):
        raise click.UsageError("--resume takes the recorded configuration; leave --set out")
    home = Home.resolve()
    if resume:
        config, profile, remark = interrupted_config(home, resume), None, "goes on"
    else:
        config, profile, remark = _config(sets, profile)
    with reserved_stdout(as_json), TrainingView(console(stderr=as_json), remark, as_json) as view:
        result = train_once(config, home, view, profile=profile, resume=resume)
    if as_json:
        model = model_address(result.run_id, home) if result.state == states.COMPLETE else None
        print_json({**asdict(result), "score": result.scores.get("score"), "model": model})
    _say_end(result, config.data.path, quiet=as_json)
    return {states.COMPLETE: DONE, states.FAILED: FAILED, states.KILLED: INTERRUPTED}[result.state]


def _config(sets: tuple[str, ...], profile: str | None) -> tuple["Config", str, str]:
    """Return the configuration (--set over the profile's recipe), the profile, and a remark."""
    from minbert import Config

    from ..study.overrides import parse_sets

    given = parse_sets(sets)
    remark = "" if profile else " (no --profile given)"
    profile = profile or ("demo" if given.get("backbone", "demo") == "demo" else "paper")
    config = Config.from_keys({**_recipe(profile), **given})
    return config, profile, f"recipe of profile {profile}{remark}"


def _recipe(profile: str) -> Mapping[str, Any]:
    """Return how a profile trains: the paper's are the defaults, the demo's its study file's."""
    from ..study.load import load_study

    if profile == "paper":
        return {}
    config = load_study("lora_sweep", profile="demo").config
    return {key: value for key, value in config.items() if key != "train.mode"}


def _say_end(result: "TrainingResult", data: str, quiet: bool) -> None:
    from ..terminal import words

    for notice in result.notices:
        click.echo(notice, err=True)
    if result.waiting:
        click.echo(
            f"{result.because or 'MLflow is away'}: what it has not got waits in {result.waiting}; "
            "then `mtl study sync` sends it",
            err=True,
        )
    if result.state == states.KILLED:
        click.echo(f"Interrupted. To go on: mtl train --resume {result.run_id}", err=True)
    elif result.state == states.FAILED:
        click.echo(f"mtl: run {result.run_id} failed: {result.reason}", err=True)
    elif not quiet:
        click.echo(f"best: epoch {result.best_epoch}, {words.scores(result.scores)}")
        click.echo(f"Its predictions: {to_predict(result.run_id, data)}")
