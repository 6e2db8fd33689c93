"""English text that ships with Python: the language reference and the standard library's docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from compressor.errors import SetupError

WORDS = range(8, 120)
"""Paragraphs of this many words are kept; the shorter ones are mostly headings and signatures."""
PROSE = 0.9
"""Least fraction of letters, spaces and commas; code and tables have fewer."""


@cache
def paragraphs() -> tuple[str, ...]:
    """Return some thousand paragraphs of plain English prose, each once, always in the same order.

    The texts are those of the running Python's version.

    Raises:
        SetupError: this Python was installed without its documentation and library sources.
    """
    found = dict.fromkeys(paragraph for text in _texts() for paragraph in _prose(text))
    if not found:
        raise SetupError(
            "this Python ships without pydoc_data and library sources, which the corpus 'python-docs' is made of",
            hint="use a full Python, or give task.train a file of your own texts",
        )
    return tuple(found)


def _texts() -> Iterator[str]:
    with suppress(ImportError):  # some distributions leave the topics out
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield topics[name]
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield from _docstrings(ast.parse(path.read_bytes()))


def _docstrings(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                yield inspect.cleandoc(text)


def _prose(text: str) -> Iterator[str]:
    """Yield the paragraphs of a text that are English sentences, each on one line and without markup."""
    for block in re.split(r"\n\s*\n", text):
        if re.search(r"^(\s{3,}\S|>>>)", block, flags=re.MULTILINE):  # code and tables are indented
            continue
        paragraph = re.sub(r"``|\*\*|(?<!\w)[*`]|[*`](?!\w)", "", " ".join(block.split()))
        letters = sum(character.isalpha() or character in " ,." for character in paragraph)
        sentence = re.match(r"[A-Z]", paragraph) and paragraph.endswith((".", "!", "?", ":"))
        if sentence and len(paragraph.split()) in WORDS and letters >= PROSE * len(paragraph):
            yield paragraph
