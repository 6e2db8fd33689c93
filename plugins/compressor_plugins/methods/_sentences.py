"""Sentences that scores of heads are means over, and the vectors that stand for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.model import PrunableGroup, accepted_inputs, collate
from compressor.model.outputs import INPUTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from compressor.run.session import Session
    from compressor_plugins.methods._head_pruning import HeadPruning

LONGEST = 128
"""Tokens of a sentence that are read, as published."""


@dataclass(frozen=True)
class Sentences:
    """Unlabeled rows and the model that reads them.

    Attributes:
        model: frozen, in eval mode.
        groups: of its heads, emptied layers left out.
        rows: tokenised, at most 128 tokens each, by length.
        batch_size: rows of a batch.
        tokenizer: pads the batches.
        pair: whether a row is two texts.
        device: where batches go.
    """

    model: nn.Module
    groups: tuple[PrunableGroup, ...]
    rows: Sequence[Mapping[str, Any]]
    batch_size: int
    tokenizer: PreTrainedTokenizerBase
    pair: bool
    device: torch.device

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield padded batches, inputs alone, the same ones in the same order every time."""
        for start in range(0, len(self.rows), self.batch_size):
            yield batch_of(self.rows[start : start + self.batch_size], self.tokenizer, self.device)

    @property
    def channel(self) -> int:
        """Which of a scorer's outputs is of these rows."""
        return channel_of(pair=self.pair)


def channel_of(*, pair: bool) -> int:
    """Return which of a scorer's outputs is of rows that are two texts, or one."""
    return 0 if pair else 1


def draw_sentences(method: HeadPruning, session: Session, model: nn.Module) -> Sentences:
    """Draw rows of the calibration rows by seed: all, where there are no more."""
    rows = session.calibration.rows
    drawn = np.random.default_rng(session.seed).permutation(len(rows))[: method.sentences]
    chosen = sorted((cut(rows[index]) for index in drawn.tolist()), key=lambda row: len(row["input_ids"]))
    return Sentences(
        model=model,
        groups=head_groups(session.family.groups(model)),
        rows=chosen,
        batch_size=session.calibration.batch_size,
        tokenizer=session.tokenizer,
        pair=session.task.pairs if method.mode is None else method.mode == "pair",
        device=session.device,
    )


def head_groups(groups: Sequence[PrunableGroup]) -> tuple[PrunableGroup, ...]:
    """Return the groups of heads that have any, bottom to top."""
    return tuple(group for group in groups if group.kind == "heads" and group.units)


def cut(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row's inputs, of a long one the first 127 tokens and the last, which separates."""
    return {
        name: ids if len(ids) <= LONGEST else [*ids[: LONGEST - 1], ids[-1]]
        for name, ids in row.items()
        if name in INPUTS
    }


def batch_of(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, device: torch.device
) -> dict[str, Tensor]:
    """Return rows as one padded batch: ``input_ids`` and friends, shape (B, T)."""
    return {name: tensor.to(device) for name, tensor in collate(rows, tokenizer).items() if name in INPUTS}


def sentence_vectors(model: nn.Module, batch: Mapping[str, Tensor], *, pair: bool) -> Tensor:
    """Return the vectors of a batch's sentences, shape (B, D), from the encoder below whatever head the model has.

    Of pairs, what the pooler gives, or the first token's hidden state where the model has no trained pooler; of single
    sentences, the mean of the last hidden states of their real tokens.
    """
    plain: Any = model
    encoder = getattr(plain, plain.base_model_prefix, plain)
    outputs = encoder(**{name: batch[name] for name in accepted_inputs(encoder) if name in batch})
    hidden: Tensor = outputs.last_hidden_state
    if not pair:
        mask = batch["attention_mask"].unsqueeze(2).to(hidden)
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1)
    pooled: Tensor | None = getattr(outputs, "pooler_output", None)
    return pooled if pooled is not None and bool(pooled.any()) else hidden[:, 0]
