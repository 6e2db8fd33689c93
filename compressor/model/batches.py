"""From tokenised rows to padded batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from compressor.model.outputs import INPUTS

PLAIN = ("labels", "window", "index")
"""Columns of numbers that join a batch as they are, shape (B,) or (B, 2)."""


def collate(rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """Pad rows to the longest of them: ``input_ids`` and friends of shape (B, T), and the columns of ``PLAIN`` if any."""
    inputs = [{key: row[key] for key in INPUTS if key in row} for row in rows]
    batch: dict[str, Tensor] = dict(tokenizer.pad(inputs, padding="longest", return_tensors="pt"))
    batch.update({key: torch.tensor([row[key] for row in rows]) for key in PLAIN if key in rows[0]})
    return batch
