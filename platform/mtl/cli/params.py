"""``mtl params``: how many parameters a configuration has and trains."""

import click

from .common import config_from_sets, json_option, print_json, set_option


@click.command()
@set_option
@json_option
def params(sets: tuple[str, ...], as_json: bool) -> None:
    """Count parameters, total and trainable. Needs no weights."""
    import minbert

    from ..storage.home import Home

    config = config_from_sets(sets)
    counts = minbert.count_parameters(config, Home.resolve(create=False).cache)
    if as_json:
        print_json(
            {
                "trainable": counts.trainable,
                "total": counts.total,
                "backbone": config.backbone,
                "mode": config.train.mode,
                "lora_rank": config.lora.rank,
            }
        )
        return
    share = 100 * counts.trainable / counts.total
    lora = f"LoRA rank {config.lora.rank}" if config.lora.rank else "no LoRA"
    click.echo(f"{config.backbone}, {config.train.mode}, {lora}")
    click.echo(f"trainable {counts.trainable:,} of {counts.total:,} parameters ({share:.2f} %)")
