"""Columns of rows, whoever read them, checked. Importing this module does not import torch."""

from __future__ import annotations

from typing import Any, Protocol

from compressor.errors import InputError, did_you_mean


class Table(Protocol):
    """Rows by column: a ``Dataset``, or the first rows of a file."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""

    def __getitem__(self, name: str, /) -> Any:
        """Return a column's values, as something to slice."""


def column(rows: Table, name: str, *, source: str, option: str) -> list[Any]:
    """Return a column's values.

    Raises:
        InputError: there is no such column, or a value is missing; names ``source`` and the task's ``option``.
    """
    if name not in rows.column_names:
        raise InputError(
            f"{source}: no column '{name}'{did_you_mean(name, rows.column_names)}; "
            f"columns: {', '.join(rows.column_names)}",
            hint="the files in task.path need the columns that the hub's data set has"
            if option == "path"
            else f"name the column in the task's option '{option}'",
        )
    values: list[Any] = rows[name][:]
    empty = next((number for number, value in enumerate(values, 1) if value is None), None)
    if empty is not None:
        raise InputError(f"{source}: column '{name}' has no value in row {empty} of {len(values)}")
    return values


def texts(rows: Table, name: str, *, source: str, option: str) -> list[str]:
    """Return a column of texts; raises like ``column``, and for values that are not text."""
    values = column(rows, name, source=source, option=option)
    other = next((value for value in values if not isinstance(value, str)), None)
    if other is not None:
        raise InputError(f"{source}: column '{name}': expected text, got {other!r} ({type(other).__name__})")
    return values
