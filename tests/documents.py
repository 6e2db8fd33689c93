"""The documents as data: fenced blocks with the marks that say what a test is to do with them.

A mark is an HTML comment in the line above a fence, which no reader sees:

``<!-- file: NAME -->``
    the block is written to NAME in the directory in which the page is walked through.
``<!-- run -->``
    its commands, or its Python, are executed there, in the order of the page: a toy checkpoint ``my-model``, and
    ``train.csv`` and ``validation.csv``. A line ``$ command`` may be followed by lines of its output.
``<!-- not run: REASON -->``
    it needs what a test has not: the hub, a GPU, another package, a server.

What has no mark is not executed but read: recipes are compiled, commands are parsed with their verbs and options,
imports of ours must be there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- (?P<mark>file|run|not run)(?:: (?P<said>[^\n]*?))? -->\n)?^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
SHELLS = {"bash", "console"}
OURS = "compress"


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: name of the file.
        line: of its fence.
        language: as the fence says.
        text: between the fences.
        mark: ``"file"``, ``"run"``, ``"not run"`` or nothing.
        said: what the mark says: the file's name, or why it is not run.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str
    said: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One line of a shell, and what the page shows of its output."""

    line: str
    output: tuple[str, ...] = ()

    @property
    def ours(self) -> list[str] | None:
        """The arguments of ``compress``, wherever in the line it is called; None where it is not."""
        words = shlex.split(self.line, comments=True)
        names = [
            number for number, word in enumerate(words) if word == OURS or word.endswith(("/compress", "compress)"))
        ]
        if not names or words[0] in {"eval", "source"}:
            return None
        arguments = words[names[0] + 1 :]
        end = next((number for number, word in enumerate(arguments) if word in {"|", ">", "&&", "||", ";"}), None)
        return arguments[:end]


def blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a page in order."""
    text = path.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        mark, said = found["mark"] or "", found["said"] or ""
        yield Block(path.name, line, found["language"], found["text"], mark, said)


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block of a shell: lines after ``$`` with their output, or all lines where there is none."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "bash":
        yield from (Command(line) for line in lines if line.strip() and not line.startswith("#"))
        return
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(lines[start][2:], tuple(line for line in lines[start + 1 : end] if line.strip()))
