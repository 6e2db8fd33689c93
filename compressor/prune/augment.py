"""More calibration rows without more data: those at hand once more, some of their tokens replaced at random.

What a dense layer makes of unlikely text is as good a target as any, and hundreds of rows hold few different tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.prune.layerwise import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase, *, below: int) -> Tensor:
    """Return the ids of all tokens that are not special, ascending, shape (V,).

    Args:
        tokenizer: whose vocabulary it is.
        below: number of tokens that the model embeds.
    """
    special = set(tokenizer.all_special_ids)
    return torch.tensor(sorted({i for i in tokenizer.get_vocab().values() if i < below and i not in special}))


def with_random_tokens(batches: Iterable[Batch], tokens: Tensor, *, fraction: float, seed: int) -> Iterator[Batch]:
    """Yield the batches with some of their tokens replaced; what becomes of a row depends on it and the seed alone.

    Args:
        batches: with ``input_ids`` and ``attention_mask`` of shape (B, T).
        tokens: what may be replaced, and by what, shape (V,).
        fraction: of these tokens to replace, in [0, 1].
        seed: of the draws.
    """
    for batch in batches:
        ids, real = batch["input_ids"].cpu().clone(), batch["attention_mask"].bool().cpu()
        for row, mask in zip(ids, real, strict=True):
            row[mask] = _scrambled(row[mask], tokens, fraction=fraction, seed=seed)
        yield {**batch, "input_ids": ids.to(batch["input_ids"].device)}


def _scrambled(row: Tensor, tokens: Tensor, *, fraction: float, seed: int) -> Tensor:
    generator = np.random.default_rng([seed, *row.tolist()])
    chosen = torch.from_numpy(generator.random(len(row)) < fraction) & torch.isin(row, tokens)
    others = tokens[torch.from_numpy(generator.integers(len(tokens), size=len(row)))]
    return torch.where(chosen, others, row)
