"""A table of words, and how numbers are written in one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Data = Mapping[str, Any]
BEST_DENSE, BEST_INT8 = "best dense", "best int8 alone"
"""What gains are stated against, and latencies limited by: names of baselines in reports."""
CLOCKS = {"cpu": "CPU time of the calling thread", "wall": "wall time"}


@dataclass(frozen=True)
class Section:
    """A table: its title, its columns, its rows of words, and remarks below it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()


def amount(value: float) -> str:
    """Write a number so that it can be read: millions and billions with two decimals, less with thousands marked."""
    for size, unit in ((1e9, " G"), (1e6, " M")):
        if value >= size:
            return f"{value / size:.2f}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def is_words(section: Section, column: int) -> bool:
    """Tell whether a column holds words, and stands on the left, or figures."""
    cells = [row[column] for row in section.rows if row[column]]
    return not all(cell[0].isdigit() or cell[0] in "+-[" for cell in cells)


def with_interval(ratio: Data) -> str:
    """Write a ratio with its interval."""
    return f"{ratio['value']:.3f} [{ratio['lower']:.3f}, {ratio['upper']:.3f}]"


def setting(measured: Data) -> str:
    """Say what ran a model: the number of threads, or another provider than the CPU."""
    if measured["provider"] != "cpu":
        return str(measured["provider"])
    return f"{measured['threads'] or 'all'} thread{'' if measured['threads'] == 1 else 's'}"


def portable(model: str) -> str:
    """Return the model that answers as this one does: fused files do as the portable ones."""
    return model.removesuffix(" fused")


PATHS = re.compile(r"""(['"])[/~.][^'"]*/([^'"/]*)\1""")
"""A quoted path, in the repr of a call; what its last name is."""


def without_paths(words: str) -> str:
    """Return words with quoted paths cut down to their last names: other machines do not have them."""
    return PATHS.sub(r"\1\2\1", words)


def shown(model: str) -> str:
    """Return a hub id as it is and a directory by its last name: other machines do not have its path."""
    is_path = model.startswith((".", "~")) or Path(model).is_absolute() or Path(model).is_dir()
    return Path(model).name if is_path else model
