"""Which blocks go: an exact number of them, by one threshold over all layers, within bounds per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import CompressorError

NOTHING, EVERYTHING = -(2**31) - 1, 2**31 - 1
"""Thresholds below and at which no score and every score lies, on the scale of ``ordered``."""


@dataclass(frozen=True)
class Layer:
    """The blocks of one weight.

    Attributes:
        scores: shape (blocks,); higher = keep.
        price: what the removal of one block counts.
        least: blocks that go at least.
        most: blocks that go at most.
    """

    scores: Tensor
    price: int
    least: int
    most: int


def lowest_blocks(layers: Sequence[Layer], budget: float) -> list[Tensor]:
    """Return which blocks go, per layer (blocks,): the lowest scores of all, which together count the budget.

    The threshold is found by bisection on the totals, each layer's count clamped to its bounds; blocks of equal score
    at the threshold go in the order of the layers and of their indices, until the total is as near to the budget as
    whole blocks allow. With equal prices that is exact. One pass, no frozen layers (the seed's pruner caps layers one
    after the other and keeps state for it).

    Args:
        layers: in a fixed order.
        budget: what should go, in the unit of the prices; outside of what the bounds allow, as near as they do.

    Raises:
        CompressorError: a score is not a number.
    """
    keys = [ordered(layer.scores) for layer in layers]
    ranked = [key.sort().values for key in keys]

    def counts(threshold: int) -> list[int]:
        return [_count(layer, values, threshold) for layer, values in zip(layers, ranked, strict=True)]

    def total(threshold: int) -> int:
        return sum(layer.price * count for layer, count in zip(layers, counts(threshold), strict=True))

    low, high = NOTHING, EVERYTHING
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if total(middle) <= budget else (low, middle - 1)
    chosen, more = counts(low), counts(min(low + 1, EVERYTHING))
    left = budget - sum(layer.price * count for layer, count in zip(layers, chosen, strict=True))
    for index, layer in enumerate(layers):
        extra = min(more[index] - chosen[index], max(0, math.floor(left / layer.price + 0.5)))
        chosen[index] += extra
        left -= extra * layer.price
    return [_lowest(key, values, count) for key, values, count in zip(keys, ranked, chosen, strict=True)]


def lowest_per_row(scores: Tensor, fraction: float) -> Tensor:
    """Return which blocks go when every row of blocks loses the same number, shape (rows, columns) of blocks.

    Args:
        scores: shape (rows, columns); higher = keep.
        fraction: of the blocks of a row; the count is rounded to the nearest.
    """
    count = math.floor(fraction * scores.shape[1] + 0.5)
    order = ordered(scores).argsort(dim=1, stable=True)[:, :count]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, order, value=True)


def ordered(scores: Tensor) -> Tensor:
    """Return integers in the order of float32 scores, of their shape, so that a threshold is found in 32 halvings.

    Raises:
        CompressorError: a score is not a number, which has no order.
    """
    if bool(scores.isnan().any()):
        raise CompressorError("scores: expected numbers, got NaN")
    bits = (scores.detach().float() + 0.0).contiguous().view(torch.int32)  # + 0.0: -0.0 and 0.0 are equal
    return torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF)


def _count(layer: Layer, ranked: Tensor, threshold: int) -> int:
    if threshold < -(2**31):
        return layer.least
    found = int(
        torch.searchsorted(ranked, torch.tensor(threshold, dtype=torch.int32, device=ranked.device), right=True)
    )
    return max(layer.least, min(layer.most, found))


def _lowest(keys: Tensor, ranked: Tensor, count: int) -> Tensor:
    """Return the ``count`` lowest keys, of equal ones the first, as a mask of the keys' shape."""
    if not count:
        return torch.zeros_like(keys, dtype=torch.bool)
    last = ranked[count - 1]
    below, ties = keys < last, keys == last
    return below | (ties & (ties.cumsum(0) <= count - below.sum()))
