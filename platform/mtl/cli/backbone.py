"""``mtl backbone``: pretrained encoders, checked and fetched."""

from typing import TYPE_CHECKING

import click

from .common import json_option, print_json, reserved_stdout

if TYPE_CHECKING:
    from minbert.backbone.check import BackboneReport


@click.group()
def backbone() -> None:
    """Check or fetch pretrained encoders."""


@backbone.command()
@click.argument("name", default="demo", metavar="[NAME]")
@json_option
def check(name: str, as_json: bool) -> None:
    """Load a backbone whole and assert every key and shape.

    NAME is a folder in the Hugging Face layout, an id that was pulled, or demo (the default).
    """
    from minbert import check_backbone

    from ..storage.home import Home

    with reserved_stdout(as_json):
        report = check_backbone(name, Home.resolve(create=False).cache)
    _print(report, as_json)


@backbone.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit; default: the main branch.")
@json_option
def pull(name: str, revision: str | None, as_json: bool) -> None:
    """Fetch a backbone by its Hugging Face id, such as bert-base-uncased.

    Its commit and the sha256 of each file are kept beside it; only safetensors is read.
    """
    from minbert import pull_backbone

    from ..storage.home import Home

    with reserved_stdout(as_json):
        report = pull_backbone(name, Home.resolve().cache, revision=revision)
    _print(report, as_json)


def _print(report: "BackboneReport", as_json: bool) -> None:
    shape, revision = report.shape, (report.pulled or {}).get("revision")
    if as_json:
        print_json(
            {
                "backbone": report.name,
                "folder": str(report.folder),
                "parameters": report.parameters,
                "layers": shape.layers,
                "hidden_size": shape.hidden_size,
                "heads": shape.num_heads,
                "vocab_size": shape.vocab_size,
                "max_positions": shape.max_positions,
                "sha256": report.digest,
                "revision": revision,
            }
        )
        return
    click.echo(f"{report.name}: good; every key and shape is as it should be")
    click.echo(f"folder      {report.folder}")
    click.echo(
        f"shape       {shape.layers} layers, hidden {shape.hidden_size}, {shape.num_heads} heads, "
        f"vocabulary {shape.vocab_size:,}, {shape.max_positions} positions"
    )
    click.echo(f"parameters  {report.parameters:,}")
    click.echo(f"sha256      {report.digest}")
    if revision:
        click.echo(f"revision    {revision}")
