"""Reorder inputs so that N:M keeps more: only where the dense model computes the same in the new order.

What reads the FFN neurons may read them in any order, and so may what reads the coordinates of a head, whose values are
made by rows of one projection. Nothing else is touched: the residual stream is shared by every layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.model.blocks import Blocks
from compressor.model.groups import ParamSlice, PrunableGroup


@dataclass(frozen=True)
class Search:
    """How long to look for an order.

    Attributes:
        rounds: of random pairs of runs, each pair exchanging one column where that keeps more.
        seed: of the pairs.
    """

    rounds: int = 100
    seed: int = 0


def kept_score(scores: Tensor, blocks: Blocks) -> float:
    """Return the sum of the scores that N:M keeps, of a weight's scores, shape (out, in)."""
    cut = blocks.view(scores.detach().double())
    return float(cut.topk(blocks.size - blocks.dropped, dim=1).values.sum())


def better_order(scores: Tensor, blocks: Blocks, search: Search) -> Tensor:
    """Return an order of the columns under which N:M keeps at least as much, shape (in,): new column i is old order[i].

    Pool and Yu, "Channel Permutations for N:M Sparsity", 2021, exchange columns between runs while that helps. Here runs
    are paired at random, and every pair makes the best exchange of one column for one, if any: never worse.

    Args:
        scores: of a weight, shape (out, in), not negative.
        blocks: runs of M inputs.
        search: how long.
    """
    size, keep = blocks.columns, blocks.columns - blocks.dropped
    generator = torch.Generator().manual_seed(search.seed)
    runs = torch.arange(scores.shape[1], device=scores.device).reshape(-1, size)  # which columns each run has
    values = scores.float().T.contiguous()  # (in, out)
    for _ in range(search.rounds):
        pairs = torch.randperm(len(runs), generator=generator)[: len(runs) // 2 * 2].reshape(-1, 2).to(scores.device)
        runs[pairs] = _exchanged(runs[pairs], values, keep)
    return runs.flatten()


def _exchanged(pairs: Tensor, values: Tensor, keep: int) -> Tensor:
    """Return pairs of runs, shape (P, 2, M), after the exchange that keeps most; as they are where none keeps more."""
    size = pairs.shape[2]
    one, other = ([values[pairs[:, side, place]] for place in range(size)] for side in (0, 1))
    best = pairs.clone()
    gain = (_kept(one, keep) + _kept(other, keep)) * (1 + 1e-6)  # rounding is no gain
    for first in range(size):
        for second in range(size):
            ours, theirs = [*one], [*other]
            ours[first], theirs[second] = other[second], one[first]
            kept = _kept(ours, keep) + _kept(theirs, keep)
            tried = pairs.clone()
            tried[:, 0, first], tried[:, 1, second] = pairs[:, 1, second], pairs[:, 0, first]
            better = kept > gain
            best[better], gain[better] = tried[better], kept[better]
    return best


def _kept(columns: Sequence[Tensor], keep: int) -> Tensor:
    """Return what runs keep, shape (P,), by passes of a bubble sort: topk over four numbers costs ten times as much.

    Args:
        columns: M of them, each (P, out).
        keep: of M.
    """
    left, total = list(columns), torch.zeros_like(columns[0])
    for _ in range(keep):
        for place in range(len(left) - 1):
            pair = left[place], left[place + 1]
            left[place], left[place + 1] = torch.minimum(*pair), torch.maximum(*pair)
        total += left.pop()
    return total.sum(dim=1)


def find_orders(
    groups: Sequence[PrunableGroup], scores: Mapping[str, Tensor], layouts: Mapping[str, Blocks], search: Search
) -> dict[str, Tensor]:
    """Return new orders of what N:M consumers read, by group name, shape (units * width,): new input i is old order[i].

    Args:
        groups: of the model.
        scores: of the weights' elements, by parameter name, shape (out, in), not negative: what should be kept.
        layouts: of the weights to prune; only N:M consumers among them are reordered.
        search: how long to look.
    """
    orders = {}
    for group in groups:
        name = f"{group.consumer.module}.weight"
        blocks = layouts.get(name)
        if blocks is None or name not in scores or not blocks.partial or not group.units or group.consumer.offset:
            continue
        order = _order(scores[name], blocks, group, search)
        if order is not None:
            orders[group.name] = order
    return orders


@torch.no_grad()
def reordered(
    tensors: Mapping[str, Tensor], groups: Sequence[PrunableGroup], orders: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors that new orders change: columns of consumers, rows and biases of what makes their inputs.

    A model with its parameters reordered computes what it did.

    Args:
        tensors: parameters of a model by name, or anything of their shapes, such as scores; left out ones stay out.
        groups: of the model.
        orders: what ``find_orders`` found.
    """
    changed: dict[str, Tensor] = {}
    for group in groups:
        if group.name not in orders:
            continue
        order = orders[group.name]
        name = f"{group.consumer.module}.weight"
        if name in tensors:
            changed[name] = tensors[name][:, order].clone()
        for piece in group.producers if group.kind == "ffn_neurons" else group.producers[-1:]:  # a head's values
            changed |= _reordered_rows({**tensors, **changed}, piece, order)
    return changed


def _order(scores: Tensor, blocks: Blocks, group: PrunableGroup, search: Search) -> Tensor | None:
    """Return an order of a consumer's columns; a head's coordinates stay within it. None where runs cross heads."""
    if group.kind == "ffn_neurons":
        return better_order(scores, blocks, search)
    width = group.width
    if width % blocks.columns:
        return None
    heads = (scores[:, unit * width : (unit + 1) * width] for unit in range(group.units))
    return torch.cat([better_order(own, blocks, search) + unit * width for unit, own in enumerate(heads)])


def _reordered_rows(tensors: Mapping[str, Tensor], piece: ParamSlice, order: Tensor) -> dict[str, Tensor]:
    """Return weight and bias of a producer with the rows of one slice in a new order."""
    found = {}
    for name in (f"{piece.module}.weight", f"{piece.module}.bias"):
        if name in tensors:
            values = tensors[name].detach().clone()
            values[piece.offset : piece.offset + len(order)] = tensors[name][piece.offset + order]
            found[name] = values
    return found
