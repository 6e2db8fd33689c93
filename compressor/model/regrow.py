"""The way back from a pruned model to weights in the shape of the model it came from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup


def full_weights(
    model: nn.Module, groups: Sequence[PrunableGroup], smaller: nn.Module, keep: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return replacements for a model's parameters with which ``shrink`` under the same masks gives ``smaller``.

    Of the producers and consumers of every group; what the masks remove keeps the model's own values. Parameters that
    nobody changed are left out.

    Args:
        model: that the masks are of.
        groups: of ``model``.
        smaller: a pruned copy of it, its remaining weights changed since.
        keep: per group name, shape (units,), ``True`` = keep; groups left out keep everything.
    """
    changed = {}
    present, remaining = dict(model.named_parameters()), dict(smaller.named_parameters())
    for name, gone in _removed(groups, keep).items():
        if name not in present:
            continue  # no bias, or a sublayer that was emptied before
        full, small = present[name].detach(), remaining.get(name)
        stays = [torch.ones(size, dtype=torch.bool, device=full.device) for size in full.shape]
        for dim, indices in gone:
            stays[dim][indices.to(full.device)] = False
        if small is None or any(not bool(stay.any()) for stay in stays):
            continue  # a sublayer that lost everything
        spread = full.clone()
        spread[torch.meshgrid(*(stay.nonzero().flatten() for stay in stays), indexing="ij")] = small.detach()
        if not torch.equal(spread, full):
            changed[name] = spread
    return changed


def _removed(groups: Sequence[PrunableGroup], keep: Mapping[str, Tensor]) -> dict[str, list[tuple[int, Tensor]]]:
    """Return, per parameter of producers and consumers, which indices of which dimension go."""
    removed: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)
    for group in groups:
        mask = keep.get(group.name, torch.ones(group.units, dtype=torch.bool))
        gone = (~mask.cpu()).nonzero().flatten()
        for piece in (*group.producers, group.consumer):
            columns = (piece.offset + gone.unsqueeze(1) * piece.width + torch.arange(piece.width)).flatten()
            removed[f"{piece.module}.weight"].append((piece.dim, columns))
            removed[f"{piece.module}.bias"] += [(0, columns)] if piece.dim == 0 else []
    return removed
