"""How the pages become a site: ``make docs``."""

from __future__ import annotations

import re
from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "compressor"
copyright = "the authors of compressor; Apache-2.0"  # noqa: A001 - Sphinx reads this name
version = release = installed("compressor-onnx")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["*.py"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "compressor"
html_show_sourcelink = False
nitpicky = True
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")
"""Links to files of the repository that are no pages; on the site their text stays."""

DATA = ("csv", "jsonl", "conll")
"""What pages show rows of, and Pygments does not know."""


def setup(app: Sphinx) -> None:
    """Take links out of the site that lead out of it; show rows of data as they are."""
    app.connect("source-read", _within)
    for language in DATA:
        app.add_lexer(language, TextLexer)


def _within(_: Sphinx, __: str, source: list[str]) -> None:
    source[0] = OUTSIDE.sub(r"\1", source[0])
