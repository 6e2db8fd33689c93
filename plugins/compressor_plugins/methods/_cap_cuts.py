"""Which heads and neurons a cut removes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.model import Masks
from compressor.model.costs import priced
from compressor_plugins.methods._budget import linear_budget, sequence_of

if TYPE_CHECKING:
    from compressor.model import PrunableGroup, Scores, UnitKind
    from compressor.run.session import Session
    from compressor_plugins.methods.cap import Cap


def check_percentages(method: Cap, heads: Sequence[int]) -> None:
    """Check that the last percentage leaves every layer the heads that it keeps.

    Args:
        method: with its options.
        heads: of every layer.

    Raises:
        InputError: it does not.
    """
    if method.percentages is None:
        return
    last = method.percentages[-1]
    kept = sum(min(method.min_heads, units) for units in heads)
    left = sum(heads) - int(sum(heads) * last / 100)
    if left < kept:
        raise InputError(
            f"cap: percentages: {last:g} % of {sum(heads)} heads leaves {left}; "
            f"min_heads {method.min_heads} keeps {kept}, in {len(heads)} layers",
            hint="lower the last percentage, or min_heads",
        )


def lowest(groups: Sequence[PrunableGroup], scores: Scores, count: int, *, spared: int = 0) -> dict[str, Tensor]:
    """Return masks, shape (units,) each, that remove so many units of lowest score, over all groups.

    Args:
        groups: of one kind.
        scores: per group name, shape (units,); of equal ones the lower layer's, then the lower index, stays.
        count: of units to remove.
        spared: units of highest score that every group keeps whatever the others score.
    """
    flat = torch.cat([protected(scores[group.name].double(), spared, torch.inf) for group in groups])
    order = torch.argsort(flat, descending=True, stable=True)
    keep = torch.ones(len(flat), dtype=torch.bool)
    keep[order[len(flat) - count :]] = False
    return {group.name: part for group, part in zip(groups, torch.split(keep, [g.units for g in groups]), strict=True)}


def protected(scores: Tensor, count: int, value: float) -> Tensor:
    """Return scores in which the highest so many are this value."""
    top = torch.argsort(scores, descending=True, stable=True)[:count]
    return scores.index_fill(0, top, value)


def cut_by_percentage(
    method: Cap, session: Session, scores: Scores, totals: Mapping[UnitKind, int], number: int
) -> Masks:
    """Return masks of the model as it is now after which ``int(total * percentage / 100)`` units of each kind are gone.

    Args:
        method: with its percentages.
        session: of the model as it is now.
        scores: per group name, shape (units,).
        totals: units of each kind before the first cut.
        number: of the cut, from 0.
    """
    masks: dict[str, Tensor] = {}
    for kind, total in totals.items():
        groups = [group for group in session.groups if group.kind == kind]
        left = total - int(total * (method.percentages or ())[number] / 100)
        gone = max(0, sum(group.units for group in groups) - left)
        masks |= lowest(groups, scores, gone, spared=method.min_heads if kind == "heads" else 0)
    return Masks(masks)


def cut_by_cost(method: Cap, begun: Session, now: Session, scores: Scores, number: int) -> Masks:
    """Return masks of highest kept importance that cost what is allowed after a cut: equal steps down to the target.

    Args:
        method: with its target.
        begun: the session before the first cut.
        now: the session of the model as it is now.
        scores: per group name, shape (units,).
        number: of the cut, from 0.

    Raises:
        InputError: the heads that every layer keeps cost more.
    """
    target = method.target
    if target is None:
        raise TypeError("expected a target")
    budget = linear_budget(target, begun, sequence_of(target, begun))
    heads = [group for group in now.groups if group.kind == "heads"]
    kept = sum(min(method.min_heads, group.units) for group in heads)
    if priced(budget.prices, [("heads", kept)]) > budget.at(budget.keep):
        raise InputError(
            f"cap: min_heads {method.min_heads}: {kept} heads alone cost more than target.{target.amount} {budget.keep:g} allows",
            hint="lower min_heads, or raise the target",
        )
    above = 1.0 + sum(float(values.double().sum()) for values in scores.values())
    spared = {group.name: protected(scores[group.name].double(), method.min_heads, above) for group in heads}
    first = priced(budget.prices, [(group.kind, group.units) for group in begun.groups]) / budget.dense
    keep = first + (budget.keep - first) * (number + 1) / method.cuts
    return budget.masks(now, {**scores, **spared}, keep)
