"""From columns of texts to tokenised rows."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from compressor.model.outputs import INPUTS
from compressor_plugins.tables import quiet
from compressor_plugins.tasks._columns import column, texts

__all__ = ["column", "mapped", "texts", "tokenise"]


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
