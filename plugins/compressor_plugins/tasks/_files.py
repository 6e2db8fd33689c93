"""From files to tokenised rows, in memory: nothing is cached, so nothing can be stale. No code is ever loaded."""

from __future__ import annotations

import csv
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetsError
from transformers import PreTrainedTokenizerBase

from compressor.errors import InputError, did_you_mean
from compressor.model.outputs import INPUTS
from compressor_plugins.tasks._options import missing

_TEXT_STAYS = {"keep_default_na": False}  # pandas would read the texts "NA" and "null" as missing
READERS: Mapping[str, tuple[Callable[..., Dataset], Mapping[str, Any]]] = {
    ".parquet": (Dataset.from_parquet, {}),
    ".csv": (Dataset.from_csv, _TEXT_STAYS),
    ".tsv": (Dataset.from_csv, {**_TEXT_STAYS, "sep": "\t", "quoting": csv.QUOTE_NONE}),  # quotes are text, as in GLUE
    ".json": (Dataset.from_json, {}),
    ".jsonl": (Dataset.from_json, {}),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep datasets' bars and log lines off the screen: our error says it all."""
    verbosity, no_bars = datasets.logging.get_verbosity(), datasets.utils.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    if not no_bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if not no_bars:
            datasets.enable_progress_bars()


def read_rows(path: Path) -> Dataset:
    """Read a csv, tsv, json, jsonl or parquet file.

    Raises:
        InputError: the file is missing, empty, broken, or of an unknown kind.
    """
    if path.suffix not in READERS:
        raise InputError(f"{path}: expected a file ending in {', '.join(READERS)}; got '{path.suffix}'")
    if not path.is_file():
        raise InputError(missing(path))
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty")
    reader, options = READERS[path.suffix]
    try:
        with quiet(), tempfile.TemporaryDirectory() as cache:
            rows = reader(str(path), cache_dir=cache, keep_in_memory=True, **options)
    except (DatasetsError, OSError, ValueError) as error:
        if "no data" in str(error):  # a header without rows
            raise InputError(f"{path}: the file has no rows") from error
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]}: {error.__cause__ or error}") from error
    if len(rows) == 0:
        raise InputError(f"{path}: the file has no rows")
    return rows


def column(rows: Dataset, name: str, *, source: str, option: str) -> list[Any]:
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


def texts(rows: Dataset, name: str, *, source: str, option: str) -> list[str]:
    """Return a column of texts; raises like ``column``, and for values that are not text."""
    values = column(rows, name, source=source, option=option)
    other = next((value for value in values if not isinstance(value, str)), None)
    if other is not None:
        raise InputError(f"{source}: column '{name}': expected text, got {other!r} ({type(other).__name__})")
    return values


def tokenise(
    first: Sequence[str],
    second: Sequence[str] | None = None,
    *,
    labels: Sequence[int] | Sequence[float] | Sequence[Sequence[float]] | None = None,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Dataset:
    """Return ``input_ids``, ``attention_mask``, (``token_type_ids``,) (``labels``) of every text or pair of texts."""
    length = min(max_length, tokenizer.model_max_length)
    columns = {"first": list(first)} | ({"second": list(second)} if second is not None else {})
    rows = Dataset.from_dict(columns | ({"labels": list(labels)} if labels is not None else {}))

    def encode(batch: Mapping[str, list[str]]) -> dict[str, Any]:
        encoded = tokenizer(*(batch[name] for name in columns), truncation=True, max_length=length)
        return {name: encoded[name] for name in INPUTS if name in encoded}

    return mapped(rows, encode, remove=list(columns))


def mapped(
    rows: Dataset, encode: Callable[[dict[str, list[Any]]], dict[str, list[Any]]], *, remove: list[str] | None = None
) -> Dataset:
    """Return what ``encode`` makes of batches of rows, beside the columns not removed; by default all are."""
    with quiet():
        return rows.map(
            encode,
            batched=True,
            remove_columns=rows.column_names if remove is None else remove,
            keep_in_memory=True,
            load_from_cache_file=False,
            new_fingerprint=uuid.uuid4().hex,  # instead of hashing the tokenizer for a cache that is not used
        )
