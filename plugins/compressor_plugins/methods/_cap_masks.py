"""Weights under masks that scores decide: straight-through gradients, and how many stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

LEAST = 0.005
"""Fraction of a matrix that soft movement keeps at least, less one weight."""


class StraightThrough(torch.autograd.Function):
    """``weight * mask``, whose gradient reaches the scores as if these were the mask (Sanh et al. 2020, section 4)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """Return the masked weight; all three have its shape."""
        del scores
        ctx.save_for_backward(weight, mask)
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return ``mask * dL/dW'`` for the weight and ``weight * dL/dW'`` for the scores."""
        weight, mask = ctx.saved_tensors
        return gradients[0] * mask, gradients[0] * weight, None


class MaskedWeight(nn.Module):
    """Makes of a Linear's weight a masked one, for as long as it is registered on it.

    Attributes:
        scores: one for each weight, from 0; None where the weights' magnitudes are the scores.
        held: what earlier steps keep; nothing else ever counts.
        mask: in force now.
    """

    held: Tensor
    mask: Tensor

    def __init__(self, weight: Tensor, held: Tensor | None, *, learned: bool) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros_like(weight)) if learned else None
        everything = torch.ones_like(weight, dtype=torch.bool)
        self.register_buffer("held", everything if held is None else held.to(weight.device), persistent=False)
        self.register_buffer("mask", self.held.clone())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        if self.scores is None:
            return weight * self.mask
        masked: Tensor = StraightThrough.apply(weight, self.scores, self.mask)  # type: ignore[no-untyped-call]  # torch has no types here
        return masked

    def ranks(self, weight: Tensor) -> Tensor:
        """Return what decides which weights stay, of the weight's shape; below all others what an earlier step removed."""
        scores = weight.abs() if self.scores is None else self.scores
        return scores.detach().masked_fill(~self.held, -torch.inf)


def masked_weights(
    model: nn.Module, held: Mapping[str, Tensor], names: list[str], *, learned: bool
) -> dict[str, MaskedWeight]:
    """Put weights of a model under masks, in place; return these by parameter name.

    Args:
        model: in training.
        held: masks of earlier steps, by parameter name.
        names: of the weights.
        learned: whether scores are learned.
    """
    masks = {}
    for name in names:
        linear = model.get_submodule(name.removesuffix(".weight"))
        masks[name] = MaskedWeight(model.get_parameter(name), held.get(name), learned=learned)
        parametrize.register_parametrization(linear, "weight", masks[name])
    return masks


def original(model: nn.Module, name: str) -> Tensor:
    """Return a weight as it is learned, without its mask."""
    return model.get_parameter(f"{name.removesuffix('.weight')}.parametrizations.weight.original")


def top_mask(scores: Tensor, count: int) -> Tensor:
    """Return a mask that keeps exactly so many of the highest scores; of equal ones those of lower index stay."""
    flat = scores.flatten()
    if count >= len(flat):
        return torch.ones_like(scores, dtype=torch.bool)
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    lowest = flat.kthvalue(len(flat) - count + 1).values if flat.device.type == "cpu" else flat.topk(count).values[-1]
    keep = flat > lowest
    tied = (flat == lowest).nonzero().flatten()
    keep[tied[: count - int(keep.sum())]] = True
    return keep.reshape(scores.shape)


def soft_mask(scores: Tensor, threshold: float) -> Tensor:
    """Return a mask of the scores whose sigmoid exceeds a threshold, or of the highest, lest too few be left."""
    keep = scores.sigmoid() > threshold
    least = int(LEAST * scores.numel()) + 1
    return keep if int(keep.sum()) >= least else top_mask(scores, least)
