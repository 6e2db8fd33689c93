"""The verbs that read a finished run and measure nothing: report. No torch."""

from __future__ import annotations

from pathlib import Path

import click

from compressor.cli.boundary import echo_progress
from compressor.cli.options import json_option
from compressor.cli.recipes import write_json
from compressor.run.documents import CARD, PAGE, rewrite_documents
from compressor.verify.report import render


@click.command(name="report")
@click.argument("directory", type=click.Path(path_type=Path))
@json_option
def report(*, directory: Path, as_json: bool) -> None:
    """Write the files, then the tables to stdout."""
    found = rewrite_documents(directory)
    if as_json:
        write_json(found)
    else:
        render(found)
    echo_progress(f"written: {directory / PAGE} and {directory / CARD}")
