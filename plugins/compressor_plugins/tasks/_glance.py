"""What can be told of a file's rows without a tokenizer and without torch: for ``compress check``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.plugin import Glance
from compressor_plugins.paths import EXTENSIONS
from compressor_plugins.peek import Peek, peek
from compressor_plugins.tasks import _columns
from compressor_plugins.tasks._split_files import Published, split_file

Judge = Callable[[list[Any], str], object]
"""Raises ``InputError`` where a label, of the source that is named, is none that ``load`` would take."""


@dataclass(frozen=True)
class Wanted:
    """What a task reads of a file.

    Attributes:
        columns: each with the option that names it.
        label: the column of labels, if any.
        judge: of the labels; None where nobody knows yet which there are.
        counted: whether each row is one sample.
    """

    columns: Iterable[tuple[str, str]]
    label: str = ""
    judge: Judge | None = None
    counted: bool = True


def look(path: Path, wanted: Wanted, *, option: str) -> Glance:
    """Return everything that is wrong with a file, and how many samples it has.

    Args:
        path: of the file.
        wanted: what is read of it.
        option: of the task, that names the file.
    """
    if path.suffix not in EXTENSIONS:
        return Glance()
    try:
        rows = peek(path)
    except InputError as error:
        return Glance(((option, error.line),))
    if rows is None:
        return Glance()
    problems = []
    for name, column in wanted.columns:
        try:
            _check(rows, column, wanted.judge if column == wanted.label and rows.judged else None, option=name)
        except InputError as error:
            problems.append((name, error.line))
    return Glance(tuple(problems), rows.count if wanted.counted else None)


def look_in(directory: Path | None, data: Published, split: tuple[str, str], wanted: Wanted) -> Glance:
    """Return the same of the file of a published data set's split.

    Args:
        directory: of files; None = the hub, which is not asked.
        data: which data set.
        split: stem of the file, and the task's option that names another one.
        wanted: what is read of it.
    """
    stem, option = split
    if directory is None:
        return Glance()
    try:
        path = split_file(data, stem, path=directory, option=option)
    except InputError as error:
        return Glance((("path", error.line),))
    return look(path, wanted, option="path")


def _check(rows: Peek, column: str, judge: Judge | None, *, option: str) -> None:
    values = _columns.column(rows, column, source=rows.source, option=option)
    if judge is not None:
        judge(values, rows.source)
