"""The verbs about several runs: sweep, compare. Torch enters inside their bodies, to compare only where it measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from compressor.cli.boundary import echo_progress
from compressor.cli.completing import RecipePath
from compressor.cli.options import device_option, json_option, model_option, set_option
from compressor.cli.run import show_report
from compressor.model.files import write_text
from compressor.plugin import Registry
from compressor.recipe.loader import load_recipe
from compressor.recipe.options import Verification
from compressor.recipe.sweep import compile_sweep
from compressor.run.side_by_side import compare as side_by_side
from compressor.verify.page import comparison_page
from compressor.verify.report import render
from compressor.verify.spreadsheet import spreadsheet


@click.command(name="sweep")
@click.argument("recipe", type=RecipePath(path_type=Path))
@click.option(
    "--over",
    multiple=True,
    metavar="PATH=VALUE,VALUE,...",
    help="A list for any place that --set replaces, beside those in the recipe's targets; repeatable, for every "
    "combination: steps.0.prune.target.macs=0.8,0.6,0.4",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Let the nodes of a running Ray cluster do the points: auto, HOST:PORT. They must see the output directory.",
)
@model_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Directory to make; default: runs/NAME-sweep.")
@set_option
@device_option
@click.option("--fresh", is_flag=True, help="Start over, and replace the output directory when finished.")
@json_option
def sweep(
    *,
    recipe: Path,
    over: tuple[str, ...],
    ray: str | None,
    model: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    device: str,
    fresh: bool,
    as_json: bool,
) -> int:
    """Return 1 when a gate of any point failed, the code of its error when a point could not be finished."""
    registry = Registry.load()
    plan = compile_sweep(load_recipe(recipe, model=model, overrides=overrides), registry, over=over)
    for lint in dict.fromkeys(lint for point in plan.points for lint in point.plan.lints):
        echo_progress(f"note: {lint}")

    from compressor.run.load import resolve_device
    from compressor.run.pipeline import Conditions
    from compressor.run.sweep import run_sweep

    out = output or Path("runs") / f"{plan.first.recipe.name}-sweep"
    conditions = Conditions(registry, resolve_device(device), echo_progress)
    finished = run_sweep(plan, out, conditions, fresh=fresh, ray=ray)
    show_report(finished.report, render, as_json=as_json)
    echo_progress(f"written to {out}")
    errors = [row["error"]["exit_code"] for row in finished.report["rows"] if row.get("error")]
    if errors:
        echo_progress(f"{len(errors)} of {len(plan.points)} points FAILED; the same command tries them again")
    return errors[0] if errors else 0 if finished.passed else 1


@click.command(name="compare")
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--latency", is_flag=True, help="Time all models again, interleaved, at the first one's shapes and on its provider."
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the tables and a picture to a page."
)
@click.option("--csv", "as_csv", is_flag=True, help="Write one row per run to stdout as csv.")
@json_option
def compare(*, directories: tuple[Path, ...], latency: bool, html: Path | None, as_csv: bool, as_json: bool) -> None:
    """Write the tables, and what makes figures incomparable to stderr."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: choose one")
    report = side_by_side(directories)
    if latency:
        from compressor.run.again import bench_files, dense_files

        places = [Path(place) for place in report["compare"]["directories"]]
        timed: list[Any] = next((row["latency"] for row in report["rows"] if row["latency"]), [])
        shapes = {name: tuple(dict.fromkeys(one[name] for one in timed)) for name in ("batch", "sequence", "threads")}
        ran = {"provider": timed[0]["provider"]} if timed else {}
        options = Verification.model_validate({**{name: values for name, values in shapes.items() if values}, **ran})
        report |= bench_files([dense_files(places[0])[0], *places], options, judged=True)
    if html:
        write_text(html, comparison_page(report))
    if as_csv:
        click.echo(spreadsheet(report), nl=False)
    else:
        show_report(report, render, as_json=as_json)
    if as_csv or as_json:
        for warning in report["warnings"]:
            echo_progress(f"warning: {warning}")
