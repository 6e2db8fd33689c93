"""The command line. ``--help`` and ``--version`` import no verb, hence no pydantic, no plugin and no torch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from compressor.cli.boundary import exit_codes
from compressor.errors import did_you_mean

VERBS = {
    "apply": (
        "compressor.cli.run:apply",
        "Run a recipe: prune, export, verify. Resumes a killed run of the same recipe.",
    ),
    "sweep": (
        "compressor.cli.sweeps:sweep",
        "Run a recipe once for every combination of lists of values, sharing what is the same, and compare. Resumes.",
    ),
    "check": ("compressor.cli.recipes:check", "Check recipes; report every mistake with its line. Loads no model."),
    "plan": ("compressor.cli.recipes:plan", "Show the stages of a recipe and the plugin call of each step."),
    "verify": ("compressor.cli.run:verify", "Measure a finished run again on this machine: metric, latency, gates."),
    "bench": ("compressor.cli.run:bench", "Time ONNX files or run directories against the first one, interleaved."),
    "compare": (
        "compressor.cli.sweeps:compare",
        "Put finished runs and sweeps side by side: sizes, metric, latency, and what makes them incomparable.",
    ),
    "report": (
        "compressor.cli.finished:report",
        "Write report.html and README.md of a finished run or sweep again, from its JSON, and print the tables.",
    ),
    "export": (
        "compressor.cli.finished:export",
        "Write the files with which a server serves a finished run: a model repository of Triton.",
    ),
    "inspect": ("compressor.cli.run:inspect", "Show what a checkpoint, a run directory or an ONNX file holds."),
    "profile": (
        "compressor.cli.run:profile",
        "Measure what every head count and FFN width of a model costs in onnxruntime on this machine.",
    ),
    "components": ("compressor.cli.recipes:components", "List what recipes can name, or explain one with its options."),
    "plugins": ("compressor.cli.recipes:plugins", "List the installed plugins, with those that failed to load."),
    "doctor": (
        "compressor.cli.doctor:doctor",
        "Look for what keeps this installation from working, or from working well.",
    ),
    "completion": (
        "compressor.cli.completing:completion",
        "Print the script with which a shell completes verbs, options, components and recipes.",
    ),
    "schema": ("compressor.cli.recipes:schema", "Print the JSON Schema of a recipe, for editors."),
    "new-plugin": (
        "compressor.cli.scaffold:new_plugin",
        "Write a package with a method or a criterion of your own, its test, a recipe and a README.",
    ),
}
"""Verb -> where it lives ("module:function") and its help, in the table and on its own page."""


class LazyGroup(click.Group):
    """Imports a verb when it is called, and turns its errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the table."""
        del ctx
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module and return its command."""
        del ctx
        if cmd_name not in VERBS:
            return None
        place, text = VERBS[cmd_name]
        module, function = place.split(":")
        command: click.Command = getattr(import_module(module), function)
        command.help = text
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of verbs without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one may be meant."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"unknown command '{args[0]}'{did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb inside the boundary; the number it returns is the exit code."""
        with exit_codes(ctx):
            code = super().invoke(ctx)
        if code:
            ctx.exit(code)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 no gate failed, 1 a gate failed, 2 usage or recipe, 3 environment, 4 a plugin failed, "
    "70 a bug of ours, 130 interrupted.",
)
@click.version_option(package_name="compressor-onnx", prog_name="compress")
def main() -> None:
    """Turn a fine-tuned transformer encoder into a smaller ONNX model that is faster in onnxruntime, measured."""
