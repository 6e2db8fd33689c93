"""Calibration rows and batches of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compressor.model.batches import collate


def draw_examples(rows: Sequence[Mapping[str, Any]], count: int | None, *, seed: int) -> list[Mapping[str, Any]]:
    """Draw examples without replacement and return their rows in the rows' order.

    Args:
        rows: those with the same number in the column ``example`` are one example; without the column, each row is.
        count: of examples; None takes all.
        seed: of the draw.
    """
    examples = [row.get("example", number) for number, row in enumerate(rows)]
    unique = list(dict.fromkeys(examples))
    order = np.random.default_rng(seed).permutation(len(unique))
    drawn = {unique[index] for index in order[:count]}
    return [row for row, example in zip(rows, examples, strict=True) if example in drawn]


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the sha256 of tokenised rows."""
    return hashlib.sha256(json.dumps(list(rows), sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class Calibration:
    """Tokenised rows drawn once, in a fixed order (by length, where ``draw_calibration`` drew them).

    Attributes:
        rows: each a mapping with ``input_ids``, ``attention_mask``, (``token_type_ids``,) (``labels``), (``window``).
        batch_size: rows per batch.
        tokenizer: pads the batches.
        numbers: of the rows in the task's train split, in the same order; empty where they are from elsewhere.
    """

    rows: Sequence[Mapping[str, Any]]
    batch_size: int
    tokenizer: PreTrainedTokenizerBase
    numbers: tuple[int, ...] = ()

    @property
    def mean_length(self) -> float:
        """Mean number of real tokens per row."""
        return sum(len(row["input_ids"]) for row in self.rows) / len(self.rows)

    def batches(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """Yield padded batches on ``device``, the same ones in the same order every time."""
        for start in range(0, len(self.rows), self.batch_size):
            batch = collate(self.rows[start : start + self.batch_size], self.tokenizer)
            yield {name: tensor.to(device) for name, tensor in batch.items()}

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(range(0, len(self.rows), self.batch_size))
