"""The verbs that read a finished run and measure nothing: report, export. No torch."""

from __future__ import annotations

from pathlib import Path

import click

from compressor.cli.boundary import echo_progress
from compressor.cli.options import json_option
from compressor.cli.recipes import write_json
from compressor.run.documents import CARD, PAGE, SHEET, rewrite_documents
from compressor.run.triton import Serving, write_repository
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
    *most, last = [str(directory / name) for name in (PAGE, CARD, *((SHEET,) if "sweep" in found else ()))]
    echo_progress(f"written: {', '.join(most)} and {last}")


@click.command(name="export")
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--target", type=click.Choice(["triton"]), required=True, help="What server the files are for.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Model repository; default: DIRECTORY-triton.")
@click.option("--name", help="Name of the model; default: that of the directory.")
@click.option("--max-batch-size", type=click.IntRange(1), default=32, show_default=True, help="Samples per call.")
@click.option("--instances", type=click.IntRange(1), default=1, show_default=True, help="Calls that run side by side.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Intra-op threads of a call, 0 = onnxruntime's choice.",
)
@json_option
def export(
    *,
    directory: Path,
    target: str,
    output: Path | None,
    name: str | None,
    max_batch_size: int,
    instances: int,
    threads: int,
    as_json: bool,
) -> None:
    """Write the files; say what the server cannot do as it was measured."""
    del target  # there is one
    root = directory.resolve()
    repository = output or root.with_name(f"{root.name}-triton")
    serving = Serving(name or root.name, max_batch_size=max_batch_size, threads=threads, instances=instances)
    notes = list(write_repository(directory, repository, serving))
    for note in notes:
        echo_progress(f"note: {note}")
    place = str(repository / serving.name)
    if as_json:
        write_json({"model": place, "notes": notes})
    else:
        click.echo(place)
