"""The verbs that touch models: apply, verify, bench, profile, inspect. Torch enters inside their bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import click

from compressor.cli.boundary import echo_progress
from compressor.cli.completing import RecipePath
from compressor.cli.options import device_option, json_option, model_option, set_option
from compressor.plugin import Registry
from compressor.processes import Processes
from compressor.recipe.loader import load_recipe
from compressor.recipe.lock import read_lock
from compressor.recipe.options import Verification
from compressor.recipe.plan import compile_plan

RUNTIMES = get_args(Verification.model_fields["provider"].annotation)
RUNTIME_HELP = str(Verification.model_fields["provider"].description)
shapes = (
    click.option("--batch", multiple=True, type=click.IntRange(1), help="Samples per call; repeatable."),
    click.option("--sequence", multiple=True, type=click.IntRange(2), help="Tokens per sample; repeatable."),
    click.option(
        "--threads",
        multiple=True,
        type=click.IntRange(0),
        help="Intra-op threads, 0 = onnxruntime's choice; repeatable.",
    ),
    click.option("--rounds", type=click.IntRange(3), help="Interleaved rounds per shape."),
)


def shape_options(command: Any) -> Any:
    """Add --batch, --sequence, --threads and --rounds to a command."""
    for option in reversed(shapes):
        command = option(command)
    return command


@click.command(name="apply")
@click.argument("recipe", type=RecipePath(path_type=Path))
@model_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Directory to make; default: runs/NAME.")
@set_option
@device_option
@click.option("--fresh", is_flag=True, help="Start over, and replace the output directory when finished.")
@click.option(
    "--locked", is_flag=True, help="Replay a lock file (or that of the recipe): the same bytes, or what differs."
)
@json_option
def apply(
    *,
    recipe: Path,
    model: str | None,
    output: Path | None,
    overrides: tuple[str, ...],
    device: str,
    fresh: bool,
    locked: bool,
    as_json: bool,
) -> int:
    """Return 1 when a gate failed, or a replay made other bytes."""
    lock = read_lock(recipe) if locked else None
    registry = Registry.load()
    plan = compile_plan(load_recipe(recipe, model=model, overrides=overrides), registry)
    for lint in plan.lints:
        echo_progress(f"note: {lint}")

    from compressor.run.load import resolve_device
    from compressor.run.pipeline import Conditions, run
    from compressor.verify.report import render

    out = output or Path("runs") / plan.recipe.name
    conditions = Conditions(registry, resolve_device(device), echo_progress, lock)
    finished = run(plan, out, conditions, fresh=fresh)
    if Processes.of_environment().writes:
        show_report(finished.report, render, as_json=as_json)
        echo_progress(f"written to {out}")
    return 0 if finished.passed and finished.reproduced else 1


@click.command(name="verify")
@click.argument("directory", type=click.Path(path_type=Path))
@shape_options
@click.option("--provider", type=click.Choice(RUNTIMES), help="Default: the recipe's.")
@json_option
def verify(*, directory: Path, as_json: bool, **shape: Any) -> int:
    """Return 1 when a gate failed."""
    from compressor.run.again import verify_again
    from compressor.verify.report import render

    report = verify_again(directory, {name: value for name, value in shape.items() if value})
    show_report(report, render, as_json=as_json)
    return 0 if report["passed"] else 1


@click.command(name="bench")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@shape_options
@click.option("--provider", type=click.Choice(RUNTIMES), default="cpu", show_default=True, help=RUNTIME_HELP)
@json_option
def bench(*, models: tuple[Path, ...], provider: Any, as_json: bool, **shape: Any) -> None:
    """Write the table of latencies."""
    from compressor.run.again import bench_files
    from compressor.verify.report import render

    options = Verification(provider=provider, **{name: value for name, value in shape.items() if value})
    report = bench_files(models, options)
    show_report(report, render, as_json=as_json)


@click.command(name="profile")
@click.option("-m", "--model", required=True, help="Hub id or directory of a checkpoint.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Samples per call.")
@click.option("--sequence", type=click.IntRange(1), default=128, show_default=True, help="Tokens per sample.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Intra-op threads, 0 = onnxruntime's choice.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="Execution provider of onnxruntime.",
)
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="Interleaved rounds.")
@click.option("--fresh", is_flag=True, help="Measure again, and replace what the cache has.")
@json_option
def profile(
    *,
    model: str,
    batch: int,
    sequence: int,
    threads: int,
    provider: Literal["cpu", "cuda", "tensorrt"],
    rounds: int,
    fresh: bool,
    as_json: bool,
) -> None:
    """Write the tables of costs."""
    from compressor.model.latency_table import Workload
    from compressor.run.profiling import profile_model
    from compressor.verify.report import render

    workload = Workload(batch=batch, sequence=sequence, threads=threads, provider=provider)
    echo_progress(f"profile {model} at {workload}: minutes, unless it was measured before")
    show_report(profile_model(model, workload, rounds=rounds, fresh=fresh), render, as_json=as_json)


@click.command(name="inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--sequence", type=click.FloatRange(min=1), default=128, show_default=True, help="Tokens MACs count.")
@json_option
def inspect(*, path: Path, sequence: float, as_json: bool) -> None:
    """Write what is found."""
    from compressor.run.inspection import inspect_path
    from compressor.verify.report import render

    show_report(inspect_path(path, sequence=sequence), render, as_json=as_json)


def show_report(report: dict[str, Any], render: Any, *, as_json: bool) -> None:
    """Write a report to stdout, as tables or as JSON."""
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        render(report)
