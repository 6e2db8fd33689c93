"""Options that several verbs share."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Write the result to stdout as JSON.")
model_option = click.option("-m", "--model", help="Hub id or directory; replaces the recipe's model.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace one value: steps.0.prune.target.macs=0.5"
)
device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
