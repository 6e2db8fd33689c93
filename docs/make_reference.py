"""Write docs/reference.md from the commands and components themselves: ``python docs/make_reference.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from compressor.cli import VERBS, main
from compressor.cli.recipes import component_text
from compressor.plugin import Registry
from compressor.plugin.registry import Registered
from compressor.recipe.options import Verification
from compressor.recipe.plan import core_provider

INTRODUCTION = """# Reference

Written by `python docs/make_reference.py` from the code; a test compares.
`compress components NAME` shows a component's part, `compress VERB --help` a command's.
"""


def reference() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, "## Commands\n", *commands(), "## Components\n", *components()]).rstrip() + "\n"


def commands() -> Iterator[str]:
    """Yield the help of every verb."""
    with click.Context(main, info_name="compress", **main.context_settings) as parent:
        for verb in VERBS:
            command = main.get_command(parent, verb)
            if command is None:
                continue
            with click.Context(command, info_name=verb, parent=parent, terminal_width=110) as context:
                yield f"### compress {verb}\n\n```text\n{command.get_help(context)}\n```\n"


def components() -> Iterator[str]:
    """Yield every first-party component with its options."""
    core = Registered(Verification.kind, Verification.name, Verification, core_provider(Verification))
    ours = [one for one in Registry.load().components() if one.provider.distribution == core.provider.distribution]
    for one in [*ours, core]:
        title, _, text = component_text(one).partition("\n")
        del title  # it names the version, which changes with every release
        yield f"### {one.kind} `{one.name}`\n\n```text\n{text.strip()}\n```\n"


if __name__ == "__main__":
    Path(__file__).with_name("reference.md").write_text(reference(), encoding="utf-8")
