"""From scores of heads to masks: the published quota of every layer, or one ranking under a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from compressor.errors import CompressorError, InputError
from compressor.model import Masks
from compressor.plugin import Pruned, Target
from compressor.prune import level_masks
from compressor_plugins.methods._budget import Budget, sequence_of
from compressor_plugins.methods._head_quota import lost_heads, lowest_removed
from compressor_plugins.methods._latency import budget_of
from compressor_plugins.methods._report import Stopwatch, figures
from compressor_plugins.methods._sentences import draw_sentences, head_groups

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods._head_pruning import HeadPruning
    from compressor_plugins.methods._latency import LatencyBudget

ROUNDING = 1e-12
"""Relative; a budget that is met exactly is met."""


def prune_all(method: HeadPruning, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
    """Score once; yield the masks of every target."""
    watch = Stopwatch()
    with watch.phase("budget"):
        budgets = [
            budget_for(target, session, method.least_heads) for target in targets
        ]  # what cannot be met stops here
    model = method.starting_model(session)
    weights = {} if model is session.model else dict(model.named_parameters())
    rows = draw_sentences(method, session, model)
    with watch.phase("scores"):
        scores = method.head_scores(session, rows)
    for target, budget in zip(targets, budgets, strict=True):
        masks = choose_masks(session, scores, target, budget, least=method.least_heads)
        extra = {} if budget is None else budget.figures(session, masks)
        yield Pruned(
            masks,
            weights,
            metrics={
                **figures(session, masks, [], sequence_of(target, session)),
                **extra,
                "head_scores": {name: [float(score) for score in values] for name, values in scores.items()},
                "sentences": len(rows.rows),
                "mode": "pair" if rows.pair else "single",
                "seconds": dict(watch.seconds),
            },
        )


def budget_for(target: Target, session: Session, least: int) -> Budget | LatencyBudget | None:
    """Return what may be spent; None where heads are counted.

    Raises:
        InputError: not even the least number of heads is within the target; FFNs are not touched.
    """
    if target.heads is not None:
        return None
    budget = budget_of(target, session, sequence_of(target, session))
    counts = head_counts(session, least)
    lowest = sum(float(budget.costs(group, counts[group.name][:1])[0]) for group in session.groups if group.units)
    if lowest > budget.at(budget.keep) * (1 + ROUNDING):
        allowed, dense = budget.at(budget.keep), budget.at(1.0)
        raise InputError(
            f"target {target!r} cannot be met by removing heads alone: FFNs and {least} of every layer's heads stay, which "
            f"costs {lowest / dense:.3f} of the dense model's sublayers; the target leaves {allowed / dense:.3f}",
            hint="ask for more, set least_heads: 0, or prune FFN neurons too (methods obs, fisher, kprune)",
        )
    return budget


def head_counts(session: Session, least: int) -> dict[str, Any]:
    """Return, per group name, how many units it may keep: ``least`` heads or more, every neuron."""
    return {
        group.name: np.arange(min(least, group.units), group.units + 1)
        if group.kind == "heads"
        else np.array([group.units])
        for group in session.groups
    }


def choose_masks(
    session: Session, scores: Scores, target: Target, budget: Budget | LatencyBudget | None, *, least: int
) -> Masks:
    """Return masks of every head; groups of neurons keep all.

    Raises:
        CompressorError: a score is negative or not a number.
    """
    for name, values in scores.items():
        if not bool((values.isfinite() & (values >= 0)).all()):
            raise CompressorError(f"scores of '{name}': expected numbers, not negative; got {values.tolist()}")
    everything = Masks({group.name: torch.ones(group.units, dtype=torch.bool) for group in session.groups})
    if budget is None:
        lost = lost_heads(session, 1.0 - (target.heads or 1.0))
        return everything.merge(Masks({name: lowest_removed(scores[name], count) for name, count in lost.items()}))
    if isinstance(budget, Budget):
        return everything.merge(ranked(session, scores, budget, least=least))
    flat = {group.name: scores.get(group.name, torch.ones(group.units)) for group in session.groups}
    counts = head_counts(session, least)
    return level_masks(
        session.groups, flat, counts=counts, prices=budget.costs, budget=budget.at(budget.keep) * (1 + ROUNDING)
    )


def ranked(session: Session, scores: Scores, budget: Budget, *, least: int) -> Masks:
    """Return masks that keep the best heads of all layers that the budget pays for, after the least of every layer."""
    groups = head_groups(session.groups)
    neurons = sum(group.units for group in session.groups if group.kind != "heads")
    paid = budget.at(budget.keep) * (1 + ROUNDING) - neurons * budget.prices.get("ffn_neurons", 0.0)
    count = int(paid // budget.prices.get("heads", math.inf))
    masks = {group.name: lowest_removed(scores[group.name], group.units - min(least, group.units)) for group in groups}
    values = torch.cat([scores[group.name].double().cpu() for group in groups])
    first = torch.cat([masks[group.name] for group in groups])
    order = torch.argsort(values.masked_fill(first, math.inf), descending=True, stable=True)
    keep = torch.zeros(len(values), dtype=torch.bool)
    keep[order[: max(count, 0)]] = True
    parts = torch.split(keep, [group.units for group in groups])
    return Masks({group.name: part.clone() for group, part in zip(groups, parts, strict=True)})
