"""Scores of single weights by what their layers read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.plugin import CriterionRun

if TYPE_CHECKING:
    from compressor.model.masks import Scores


class WandaScores(CriterionRun):
    """``abs(w_ij) * ||x_j||``: the norms gather over batches, the weights are the last ones seen.

    Args:
        targets: shapes, by name.
    """

    def __init__(self, targets: Mapping[str, tuple[int, ...]]) -> None:
        self.targets = targets
        self.squares: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(
        self,
        *,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],  # noqa: ARG002 - part of the contract
        activations: Mapping[str, Tensor],
    ) -> None:
        """Take in one batch."""
        for name in self.targets:
            if name in activations:
                new = activations[name].detach().double().square().sum(dim=0)
                self.squares[name] = new + self.squares[name].to(new.device) if name in self.squares else new
                self.weights[name] = weights[name].detach().abs().float()

    def scores(self) -> Scores:
        """Return the scores, of the weights' shapes."""
        return {name: weight * self.squares[name].sqrt().to(weight) for name, weight in self.weights.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums of squares and the weights."""
        squares = {f"squares:{name}": values.cpu().clone() for name, values in self.squares.items()}
        return squares | {f"weights:{name}": values.cpu().clone() for name, values in self.weights.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state."""
        parts: dict[str, dict[str, Tensor]] = {"squares": {}, "weights": {}}
        for key, values in state.items():
            part, _, name = key.partition(":")
            parts[part][name] = values.clone()
        self.squares, self.weights = parts["squares"], parts["weights"]
