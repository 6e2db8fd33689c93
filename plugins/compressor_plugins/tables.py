"""Files with rows, read in memory: nothing is cached, so nothing can be stale. No code is ever loaded."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetsError

from compressor.errors import InputError
from compressor_plugins.paths import missing

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
