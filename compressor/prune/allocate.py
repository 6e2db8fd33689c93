"""Choose which units stay: scores, prices and a budget go in, masks come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.errors import CompressorError
from compressor.model.groups import PrunableGroup, UnitKind
from compressor.model.masks import Masks, Scores

Array = NDArray[np.float64]


def search_masks(
    groups: Sequence[PrunableGroup], scores: Scores, *, prices: Mapping[UnitKind, float], budget: float
) -> Masks:
    """Keep the units of largest total score that cost at most ``budget``.

    Kwon et al.'s mask search (arXiv 2204.09656, algorithm 1): with one price per kind the best choice is the top units
    of each kind, so one pass over the number of heads, with prefix sums, is exact. Unlike the reference the result
    never costs more than the budget, and no head at all is a candidate too. Among equal scores the unit of the lower
    layer, then of the lower index stays; among equal totals, the choice that spends most of the budget.

    Args:
        groups: of any number of layers, with unequal unit counts; emptied groups take no part.
        scores: per group name, shape (units,), not negative; higher = keep.
        prices: of one unit, per kind, positive.
        budget: what the kept units may cost together, in the unit of the prices.

    Raises:
        CompressorError: a score is negative or not a finite number, which no search can rank.
    """
    _check_scores(scores)
    kinds: tuple[UnitKind, UnitKind] = ("heads", "ffn_neurons")
    flat = [_flat_scores(groups, scores, kind) for kind in kinds]
    order = [np.argsort(-values, kind="stable") for values in flat]
    prefix = [np.concatenate([[0.0], np.cumsum(values[ranked])]) for values, ranked in zip(flat, order, strict=True)]
    counts = _affordable(prefix, [prices.get(kind, 1.0) for kind in kinds], budget)
    kept: dict[UnitKind, NDArray[np.bool_]] = {}
    for kind, ranked, count in zip(kinds, order, counts, strict=True):
        kept[kind] = np.zeros(len(ranked), dtype=np.bool_)
        kept[kind][ranked[:count]] = True
    return _split(groups, kept)


def threshold_masks(
    groups: Sequence[PrunableGroup],
    scores: Scores,
    *,
    prices: Mapping[UnitKind, float],
    budget: float,
    settled: Mapping[UnitKind, int] | None = None,
) -> Masks:
    """Keep the units above the lowest common threshold of score per price that the budget allows.

    K-prune's mask search (Park et al., arXiv 2308.03449, section 3.3) by one sort and one running sum. Units of equal
    score are cut one by one (lower layers stay first) where the reference drops them together, and nothing has to go
    where everything fits.

    Args:
        groups: of any number of layers; emptied ones take no part.
        scores: per group name, shape (units,), not negative, *not* yet divided by the price.
        prices: of one unit, per kind, positive.
        budget: what the kept units may cost together.
        settled: units per kind that are kept elsewhere, and paid from the same budget.

    Raises:
        CompressorError: a score is negative or not a finite number.
    """
    _check_scores(scores)
    worth = [scores[group.name].double().cpu().numpy() / prices.get(group.kind, 1.0) for group in groups]
    order = np.argsort(-np.concatenate(worth), kind="stable")
    heads = np.concatenate([np.full(group.units, group.kind == "heads") for group in groups])[order]
    paid = settled or {}
    counts = {"heads": np.cumsum(heads) + paid.get("heads", 0)}
    counts["ffn_neurons"] = np.cumsum(~heads) + paid.get("ffn_neurons", 0)
    # Counts times prices, as ``model.costs`` forms every sum: equal counts then cost equal sums.
    spent = counts["heads"] * prices.get("heads", 1.0) + counts["ffn_neurons"] * prices.get("ffn_neurons", 1.0)
    keep = np.zeros(len(order), dtype=np.bool_)
    keep[order[: int(np.searchsorted(spent, budget, side="right"))]] = True
    ends = np.cumsum([group.units for group in groups])[:-1]
    return Masks(
        {group.name: torch.from_numpy(part.copy()) for group, part in zip(groups, np.split(keep, ends), strict=True)}
    )


def _check_scores(scores: Scores) -> None:
    for name, values in scores.items():
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise CompressorError(f"scores of '{name}': expected finite numbers, not negative; got {values.min():g}")


def _flat_scores(groups: Sequence[PrunableGroup], scores: Scores, kind: UnitKind) -> Array:
    parts = [scores[group.name].double().cpu().numpy() for group in groups if group.kind == kind]
    return np.concatenate([np.zeros(0), *parts])


def _affordable(prefix: Sequence[Array], prices: Sequence[float], budget: float) -> tuple[int, int]:
    """Return how many top units of the two kinds to keep."""
    first = np.arange(len(prefix[0]))
    available = len(prefix[1]) - 1
    second = np.clip(np.floor((budget - first * prices[0]) / prices[1]), 0, available).astype(np.int64)
    # Rounding in the division may ask for one unit too many, or find room for one too few.
    second += (second < available) & (first * prices[0] + (second + 1) * prices[1] <= budget)
    second -= (second > 0) & (first * prices[0] + second * prices[1] > budget)
    costs = first * prices[0] + second * prices[1]
    totals = np.where(costs <= budget, prefix[0] + prefix[1][second], -np.inf)
    if not np.isfinite(totals).any():
        return 0, 0
    best = int(np.argmax(np.where(totals == totals.max(), costs, -np.inf)))
    return best, int(second[best])


def _split(groups: Sequence[PrunableGroup], kept: Mapping[UnitKind, NDArray[np.bool_]]) -> Masks:
    start = dict.fromkeys(kept, 0)
    masks = {}
    for group in groups:
        end = start[group.kind] + group.units
        masks[group.name] = torch.from_numpy(kept[group.kind][start[group.kind] : end].copy())
        start[group.kind] = end
    return Masks(masks)


def rearrange(gram: Array, pruned: Sequence[int]) -> list[int]:
    """Exchange pruned units for kept ones of the same group, to lower the Fisher form of the pruned set.

    Kwon et al.'s mask rearrangement (section 4.2): the loss that a pruned set P costs is ``1_P' gram 1_P``, of which
    the search saw the diagonal only. One greedy pass: every other unit, by ascending diagonal, joins P, and the unit
    leaves whose departure lowers the form most (possibly the same one). ``gram @ 1_P`` is kept up to date, so a step
    costs O(units).

    Args:
        gram: shape (units, units), positive semidefinite, e.g. ``G'G`` of per-sample gate gradients.
        pruned: indices of the units to start from.

    Returns:
        Indices of as many units, ascending, whose form is not larger.
    """
    diagonal = np.diag(gram)
    inside = np.zeros(len(diagonal), dtype=np.bool_)
    inside[list(pruned)] = True
    if inside.all() or not inside.any():
        return sorted(pruned)
    products = gram[:, inside].sum(axis=1)
    outside = np.flatnonzero(~inside)
    for unit in outside[np.argsort(diagonal[outside], kind="stable")]:
        inside[unit] = True
        products += gram[:, unit]
        members = np.flatnonzero(inside)
        leaving = members[np.argmin(diagonal[members] - 2.0 * products[members])]
        inside[leaving] = False
        products -= gram[:, leaving]
    return [int(unit) for unit in np.flatnonzero(inside)]
