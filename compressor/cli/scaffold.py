"""The verb that starts a plugin: new-plugin. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from compressor.cli.options import json_option
from compressor.cli.recipes import write_json
from compressor.plugin import Registry
from compressor.plugin.scaffold import Kind, Scaffold


@click.command()
@click.argument("name")
@click.option("-o", "out", metavar="DIR", type=click.Path(path_type=Path), help="Directory to make; default: NAME.")
@click.option(
    "--kind", type=click.Choice(["method", "criterion"]), default="method", show_default=True, help="What it provides."
)
@json_option
def new_plugin(name: str, out: Path | None, kind: str, *, as_json: bool) -> None:
    """Write a package and say what to do next."""
    scaffold = Scaffold(name, cast("Kind", kind))
    scaffold.check(Registry.load(strict=False))
    directory = out or Path(name)
    written = [str(path) for path in scaffold.write(directory)]
    for path in written:
        click.echo(f"written: {path}", err=True)
    click.echo(f"  next: cd {directory} && pip install -e '.[dev]' && pytest", err=True)
    if as_json:
        write_json({"directory": str(directory), "written": written})
