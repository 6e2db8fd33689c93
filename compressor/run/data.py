"""Calibration rows and batches of them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compressor.model.batches import collate

if TYPE_CHECKING:
    from datasets import Dataset

Part = tuple[int, int]
"""An example, and which of the rows that it was cut into."""


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


def parts(rows: Dataset) -> list[Part]:
    """Return what every row is: rows with the same number in the column ``example`` are parts of one example, else each row is one."""
    seen: Counter[int] = Counter()
    found = []
    for example in rows["example"][:] if "example" in rows.column_names else range(len(rows)):
        found.append((example, seen[example]))
        seen[example] += 1
    return found


def same_parts(old: Sequence[Part], new: Sequence[Part], numbers: Sequence[int]) -> list[int]:
    """Return the numbers in ``new`` of rows that are what those of ``old`` are; of an example with fewer parts the last one.

    Args:
        old: what rows were.
        new: what they are, cut by another tokenizer.
        numbers: of rows in ``old``.
    """
    there: dict[int, list[int]] = {}
    for number, (example, _) in enumerate(new):
        there.setdefault(example, []).append(number)
    wanted = [old[number] for number in numbers if old[number][0] in there]
    return list(dict.fromkeys(there[example][min(part, len(there[example]) - 1)] for example, part in wanted))


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
