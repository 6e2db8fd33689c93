"""Write docs/reference.md from the commands and components themselves: ``python docs/make_reference.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from pydantic import BaseModel

from compressor.cli import VERBS, main
from compressor.cli.recipes import component_text
from compressor.plugin import Registry, Target, Training
from compressor.plugin.registry import Registered
from compressor.recipe.options import CalibrationOptions, Gates, Verification
from compressor.recipe.plan import core_provider

INTRODUCTION = """# Reference

Written by `python docs/make_reference.py` from the code; a test compares.
`compress components NAME` shows a component's part, `compress VERB --help` a command's.
"""


MAPPINGS: Mapping[str, type[BaseModel]] = {
    "`calibration`": CalibrationOptions,
    "`target` of a prune step: one amount, which the method must know a price for, and the shape it is meant for": Target,
    "`gates` of a verify step": Gates,
}


def reference() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION, "## Commands\n", *commands(), "## Recipe\n", *mappings(), "## Components\n", *components()]
    return "\n".join(parts).rstrip() + "\n"


def commands() -> Iterator[str]:
    """Yield the help of every verb."""
    with click.Context(main, info_name="compress", **main.context_settings) as parent:
        for verb in VERBS:
            command = main.get_command(parent, verb)
            if command is None:
                continue
            with click.Context(command, info_name=verb, parent=parent, terminal_width=110) as context:
                yield f"### compress {verb}\n\n```text\n{command.get_help(context)}\n```\n"


def mappings() -> Iterator[str]:
    """Yield the mappings of a recipe that belong to no component, with what every key means."""
    for title, cls in MAPPINGS.items():
        lines = (f"{name}: {field.description}" for name, field in cls.model_fields.items())
        yield f"### {title}\n\n```text\n{chr(10).join(lines)}\n```\n"


def components() -> Iterator[str]:
    """Yield every first-party component with its options."""
    core = [Registered(cls.kind, cls.name, cls, core_provider(cls)) for cls in (Training, Verification)]
    ours = [one for one in Registry.load().components() if one.provider.distribution == core[0].provider.distribution]
    for one in [*ours, *core]:
        title, _, text = component_text(one).partition("\n")
        del title  # it names the version, which changes with every release
        yield f"### {one.kind} `{one.name}`\n\n```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(reference(), encoding="utf-8")
