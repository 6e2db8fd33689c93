"""What a shell completes: names of components, kinds and files. Nothing here imports torch."""

from __future__ import annotations

import json
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from compressor.cli.options import json_option
from compressor.plugin import Registry

SHELLS = ("bash", "zsh", "fish")
PROGRAM = "compress"
VARIABLE = "_COMPRESS_COMPLETE"
"""The environment variable by which click's scripts ask the program, made of its name."""
RECIPES = (".yaml", ".yml")


def complete_word(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the kinds and names of components that begin so."""
    known = list(Registry.load(strict=False).components())
    words = {one.kind: "every component of this kind" for one in known}
    words |= {one.name: (one.cls.__doc__ or "").partition("\n")[0] for one in known}
    return [CompletionItem(word, help=said) for word, said in sorted(words.items()) if word.startswith(incomplete)]


class RecipePath(click.Path):
    """A path that a shell completes with recipes and with directories that may hold some."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return recipes and directories; left to the shell where there are none."""
        place, _, start = incomplete.rpartition("/")
        directory = Path(f"{place}/" if place or incomplete.startswith("/") else ".").expanduser()
        if not directory.is_dir():
            return []
        prefix = incomplete[: len(incomplete) - len(start)]
        found = [path for path in sorted(directory.iterdir()) if path.name.startswith(start)]
        items = [
            CompletionItem(f"{prefix}{path.name}{'/' if path.is_dir() else ''}")
            for path in found
            if path.suffix in RECIPES or (path.is_dir() and (start.startswith(".") or not path.name.startswith(".")))
        ]
        return items or super().shell_complete(ctx, param, incomplete)


@click.command(name="completion")
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
def completion(*, shell: str, as_json: bool) -> None:
    """Write the script."""
    chosen = get_completion_class(shell)
    if chosen is None:
        raise click.UsageError(f"click completes nothing in {shell}")
    # The class asks bash for its version on the way, and warns where that is too old.
    root = click.get_current_context().find_root().command
    script = chosen(root, {}, PROGRAM, VARIABLE).source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
