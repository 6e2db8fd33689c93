"""The verb that looks at the installation: doctor. It works where torch and onnxruntime do not."""

from __future__ import annotations

from dataclasses import asdict

import click

from compressor.cli.boundary import echo_progress
from compressor.cli.options import json_option
from compressor.cli.recipes import write_json
from compressor.errors import SetupError
from compressor.run.doctor import Finding, examine

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command(name="doctor")
@json_option
def doctor(*, as_json: bool) -> int:
    """Return 3 when something keeps the tool from working."""
    echo_progress("looking: the large libraries are imported, which takes seconds")
    found = list(examine())
    usable = all(one.status != "problem" for one in found)
    if as_json:
        write_json({"usable": usable, "findings": [asdict(one) for one in found]})
    else:
        _write(found)
        counts = {status: sum(one.status == status for one in found) for status in ("problem", "warning")}
        click.echo(", ".join(f"{count} {status}{'' if count == 1 else 's'}" for status, count in counts.items()))
    return 0 if usable else SetupError.exit_code


def _write(found: list[Finding]) -> None:
    width = max(len(one.name) for one in found)
    for one in found:
        click.secho(f"{one.status:<7}  ", fg=COLOURS[one.status], nl=False)
        click.echo(f"{one.name:<{width}}  {one.found}")
        if one.next:
            click.echo(f"{'':<{width + 11}}next: {one.next}")
