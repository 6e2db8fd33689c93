"""The published quota: every layer loses the same share of its heads, the lowest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.model.shapes import layer_ids
from compressor_plugins.methods._sentences import head_groups

if TYPE_CHECKING:
    from compressor.run.session import Session


def lost_heads(session: Session, ratio: float) -> dict[str, int]:
    """Return how many of its heads every layer loses, ``quota`` of the dense model's less what it lost before."""
    dense, layers = dense_heads(session), layer_ids_of(session, session.model)
    return {
        group.name: max(0, quota(dense[layers[group.index]], ratio) - (dense[layers[group.index]] - group.units))
        for group in head_groups(session.groups)
    }


def dense_heads(session: Session) -> Mapping[int, int]:
    """Return the heads of every layer of the model that the run started from, by the layer's number in the dense one."""
    groups = session.family.groups(session.teacher)
    layers = layer_ids_of(session, session.teacher)
    return {layers[group.index]: group.units for group in groups if group.kind == "heads"}


def layer_ids_of(session: Session, model: Any) -> list[int]:
    """Return which layers of the dense model a model's layers are."""
    return layer_ids(model.config, session.family.groups(model))


def quota(heads: int, ratio: float) -> int:
    """Return how many of a layer's heads go when a fraction does: rounded down, so below 1/heads none."""
    return min(heads, math.floor(heads * ratio + 1e-9))


def lowest_removed(scores: Tensor, count: int) -> Tensor:
    """Return a mask, shape (H,), that removes exactly so many heads, the lowest; of equals the later ones."""
    order = torch.argsort(scores.double().cpu(), descending=True, stable=True)
    keep = torch.zeros(len(scores), dtype=torch.bool)
    keep[order[: len(scores) - count]] = True
    return keep
