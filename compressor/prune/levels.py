"""Choose how much every sublayer keeps, when what a level costs is a table: any prices, measured latency included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import CompressorError
from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks, Scores

Array = NDArray[np.float64]
POINTS = 20_000
ROUNDING = 1e-9


@dataclass(frozen=True)
class Levels:
    """What one sublayer may be left with: three arrays of one entry per level, in any order.

    Attributes:
        counts: units that stay, shape (K,).
        prices: what the level costs, shape (K,), in the unit of the budget; need not grow with the count.
        losses: what is lost at the level, shape (K,).
    """

    counts: NDArray[np.int64]
    prices: Array
    losses: Array

    def __post_init__(self) -> None:
        shapes = {array.shape for array in (self.counts, self.prices, self.losses)}
        if len(shapes) != 1 or not len(self.counts):
            raise CompressorError(f"levels: expected three arrays of one length, not empty; got shapes {shapes}")
        if not (np.isfinite(self.prices).all() and np.isfinite(self.losses).all()):
            raise CompressorError("levels: expected finite prices and losses")


def choose_levels(tables: Sequence[Levels], budget: float, *, points: int = POINTS) -> list[int]:
    """Return the level of every table, by its index, of least total loss whose prices add up to at most ``budget``.

    A dynamic program over the Pareto front of (price, loss), table by table. Prices are real numbers, not buckets as
    in SPDY (Frantar and Alistarh, arXiv 2201.13096), so the result is exact while no front has more than ``points``
    members, and never costs more than the budget but for rounding (one part in 10^9). A longer front is thinned to the
    best of each of as many equal steps of price, which can cost at most one step of the budget a table.

    Args:
        tables: one per sublayer.
        budget: in the unit of the prices.
        points: the longest front that is kept.

    Raises:
        CompressorError: the cheapest levels together cost more than the budget.
    """
    budget += ROUNDING * abs(budget)  # a sum that should equal the budget may come out an ulp above it
    cheapest = np.array([table.prices.min() for table in tables])
    if cheapest.sum() > budget:
        raise CompressorError(f"the cheapest levels cost {cheapest.sum():g}, the budget is {budget:g}")
    rest = np.append(np.cumsum(cheapest[::-1])[::-1], 0.0)[1:]
    price, loss = np.zeros(1), np.zeros(1)
    steps = []
    for table, reserve in zip(tables, rest, strict=True):
        prices = (price[:, None] + table.prices).ravel()
        losses = (loss[:, None] + table.losses).ravel()
        # The cheapest way through is always let in: rounding must not shut out what was found affordable.
        limit = max(budget - reserve, prices.min())
        front = _thinned(prices, _front(prices, losses, limit), points)
        steps.append(np.divmod(front, len(table.prices)))
        price, loss = prices[front], losses[front]
    best, chosen = len(loss) - 1, []
    for parents, levels in reversed(steps):
        chosen.append(int(levels[best]))
        best = int(parents[best])
    return chosen[::-1]


def _front(prices: Array, losses: Array, limit: float) -> NDArray[np.int64]:
    """Return the indices of the points that no other beats, ascending in price, hence descending in loss."""
    order = np.lexsort((losses, prices))
    order = order[prices[order] <= limit]
    sorted_losses = losses[order]
    lowest = np.minimum.accumulate(sorted_losses)
    better = np.append(True, sorted_losses[1:] < lowest[:-1])
    front: NDArray[np.int64] = order[better]
    return front


def _thinned(prices: Array, front: NDArray[np.int64], points: int) -> NDArray[np.int64]:
    if len(front) <= points:
        return front
    along = prices[front]
    step = np.floor((along - along[0]) / (along[-1] - along[0]) * (points - 1)).astype(np.int64)
    last = np.append(step[1:] != step[:-1], True)
    last[0] = True  # the cheapest keeps the rest affordable
    thinned: NDArray[np.int64] = front[last]
    return thinned


def levels_of(scores: Array, counts: NDArray[np.int64], prices: Array) -> Levels:
    """Return the levels of a sublayer whose units are dropped by ascending score.

    Args:
        scores: shape (units,); a level's loss is the sum over the units that are dropped.
        counts: units kept at each level, shape (K,).
        prices: of each level, shape (K,).
    """
    dropped = np.concatenate([[0.0], np.cumsum(np.sort(scores))])
    return Levels(counts, prices, dropped[len(scores) - counts])


Prices = Callable[[PrunableGroup, NDArray[np.int64]], Array]
"""From a group and counts of its units to what keeping so many costs."""


def level_masks(
    groups: Sequence[PrunableGroup],
    scores: Scores,
    *,
    counts: Mapping[str, NDArray[np.int64]],
    prices: Prices,
    budget: float,
) -> Masks:
    """Keep the top units of every group, as many as ``choose_levels`` says.

    Args:
        groups: emptied ones take no part.
        scores: per group name, shape (units,), higher = keep; a level loses the sum of what it drops.
        counts: per group name, how many units it may keep.
        prices: of a group at these counts.
        budget: in the unit of the prices.

    Raises:
        CompressorError: no choice of levels is within the budget.
    """
    active = [group for group in groups if group.units]
    values = {group.name: scores[group.name].double().cpu().numpy() for group in active}
    tables = [levels_of(values[g.name], counts[g.name], prices(g, counts[g.name])) for g in active]
    keep = {group.name: torch.zeros(group.units, dtype=torch.bool) for group in groups}
    for group, table, level in zip(active, tables, choose_levels(tables, budget), strict=True):
        top = np.argsort(-values[group.name], kind="stable")[: int(table.counts[level])]
        keep[group.name][torch.from_numpy(top.copy())] = True
    return Masks(keep)
