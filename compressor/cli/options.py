"""Options that several verbs share."""

from __future__ import annotations

import click

JSON_ASKED = "compressor.json"
"""Key of the context's ``meta``, which the boundary reads when something was raised."""


def _remember(context: click.Context, _: click.Parameter, value: bool) -> bool:  # noqa: FBT001 - click calls it
    context.meta[JSON_ASKED] = value
    return value


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    is_eager=True,
    callback=_remember,
    help="Write the result, or the error, to stdout as JSON.",
)
model_option = click.option("-m", "--model", help="Hub id or directory; replaces the recipe's model.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace one value: steps.0.prune.target.macs=0.5"
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where torch computes; auto: the GPU where there is one.",
)
