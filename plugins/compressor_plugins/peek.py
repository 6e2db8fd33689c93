"""The first rows of a file with rows, for ``compress check``: read without the libraries that a run reads them with.

Those take seconds to import. What only they can judge is left to them: no row is refused here that a run would take.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from compressor.errors import InputError

WHOLE = 16 * 2**20
"""Bytes of the largest text file that is read to its end."""
FIRST = 1000
"""Rows that are read of a larger one, and of a parquet file."""
DIALECTS: Mapping[str, Mapping[str, Any]] = {
    ".csv": {},
    ".tsv": {"delimiter": "\t", "quoting": csv.QUOTE_NONE},  # quotes are text, as in GLUE
}

TRUTH = {text: truth for truth in (False, True) for text in (str(truth), str(truth).lower(), str(truth).upper())}


@dataclass(frozen=True)
class Peek:
    """Rows by column.

    Attributes:
        source: the file, and whether only its first rows were read, for messages.
        columns: values by column.
        count: rows of the whole file, where that is known.
        judged: whether a value is what a run would read: not where the file itself says what class ids mean.
    """

    source: str
    columns: Mapping[str, list[Any]]
    count: int | None
    judged: bool = True

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.columns)

    def __getitem__(self, name: str) -> list[Any]:
        """Return a column's values."""
        return self.columns[name]


def peek(path: Path) -> Peek | None:
    """Return the first rows of a csv, tsv, json, jsonl or parquet file; None where only a run can read it.

    Raises:
        InputError: the file is empty, has no rows, or is no parquet file.
    """
    size = path.stat().st_size
    if size == 0:
        raise InputError(f"{path}: the file is empty")
    if path.suffix == ".parquet":
        return _parquet(path)
    try:
        names, rows = _delimited(path, size) if path.suffix in DIALECTS else _objects(path, size)
    except (csv.Error, OSError, ValueError):  # a UnicodeDecodeError is one
        return None
    if not rows:
        raise InputError(f"{path}: the file has no rows")
    columns = {name: [row.get(name) for row in rows] for name in names or dict.fromkeys(chain.from_iterable(rows))}
    if path.suffix in DIALECTS:
        columns = {name: _typed(values) for name, values in columns.items()}
    whole = size <= WHOLE
    return Peek(_source(path, whole=whole), columns, len(rows) if whole else None)


def _source(path: Path, *, whole: bool) -> str:
    return str(path) if whole else f"{path} (its first {FIRST} rows)"


def _delimited(path: Path, size: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Read as pandas does, which passes blank lines by, wherever they are, and names columns that have no name."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = (
            line for line in csv.reader(file, **DIALECTS[path.suffix]) if len(line) > 1 or any(map(str.strip, line))
        )
        names = [name or f"Unnamed: {number}" for number, name in enumerate(next(lines, []))]
        rows = list(islice(lines, None if size <= WHOLE else FIRST))
    if len(set(names)) < len(names) or any(len(row) > len(names) for row in rows):
        message = (
            "expected a name of its own for every column"  # pandas makes some up, or takes the first one for an index
        )
        raise ValueError(message)
    return names, [dict(zip_longest(names, row, fillvalue="")) for row in rows]


def _objects(path: Path, size: int) -> tuple[list[str], list[dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        if file.read(1) == "[":
            found: list[Any] = json.loads(f"[{file.read()}") if size <= WHOLE else [None]
        else:
            file.seek(0)
            lines = (line for line in file if line.strip())
            found = [json.loads(line) for line in islice(lines, None if size <= WHOLE else FIRST)]
    if not all(isinstance(row, dict) for row in found):
        message = "expected objects"
        raise ValueError(message)
    return [], found


def _parquet(path: Path) -> Peek:
    import pyarrow as pa  # type: ignore[import-untyped]  # has no types
    import pyarrow.parquet as pq  # type: ignore[import-untyped]  # the same

    try:
        file = pq.ParquetFile(path)
        count = file.metadata.num_rows
        first = next(file.iter_batches(batch_size=FIRST), None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as parquet: {error}") from error
    if first is None or count == 0:
        raise InputError(f"{path}: the file has no rows")
    judged = b"huggingface" not in (file.schema_arrow.metadata or {})
    return Peek(_source(path, whole=count <= FIRST), first.to_pydict(), count, judged=judged)


def _typed(values: list[Any]) -> list[Any]:
    """Return a column's cells, texts, as pandas takes them: numbers or truth values where all of them are."""
    if set(values) <= TRUTH.keys():
        return [TRUTH[value] for value in values]
    if not all(value.isascii() and "_" not in value and "nan" not in value.lower() for value in values):
        return list(values)  # numbers to Python alone, such as 1_000
    for kind in (int, float):
        try:
            return [kind(value) for value in values]
        except ValueError:
            continue
    return list(values)
