"""From columns of texts to tokenised rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from compressor.errors import InputError, did_you_mean
from compressor.model.outputs import INPUTS
from compressor_plugins.tables import quiet


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
