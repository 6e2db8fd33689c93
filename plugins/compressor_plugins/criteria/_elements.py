"""Running scores of single weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.plugin import CriterionRun

if TYPE_CHECKING:
    from compressor.model.masks import Scores

Update = Callable[[Tensor, Tensor], Tensor]
"""From a weight and its gradient (the weight itself, where none is needed) to what is added to its scores."""


class RunningScores(CriterionRun):
    """Element scores ``s <- decay * s + update(weight, gradient)``, from 0; kept whole, reduced to blocks by whoever asks.

    Args:
        targets: shapes, by name.
        update: see ``Update``.
        decay: what is left of the old score; 0 = of the last observation alone.
        gradients: whether weights without a gradient are passed over: they have no score then.
    """

    def __init__(
        self, targets: Mapping[str, tuple[int, ...]], update: Update, *, decay: float, gradients: bool = True
    ) -> None:
        self.targets, self.update, self.decay, self.gradients = targets, update, decay, gradients
        self.state: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(
        self,
        *,
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        activations: Mapping[str, Tensor],  # noqa: ARG002 - part of the contract
    ) -> None:
        """Take in one batch."""
        signals = gradients if self.gradients else weights
        for name in self.targets:
            if name in signals:
                new = self.update(weights[name].detach().float(), signals[name].detach().float())
                old = self.state.get(name)
                self.state[name] = new if old is None or not self.decay else old.to(new.device) * self.decay + new

    def scores(self) -> Scores:
        """Return the element scores, of the weights' shapes."""
        return {name: self.state[name] for name in self.targets if name in self.state}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the scores."""
        return {name: scores.cpu().clone() for name, scores in self.state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from saved scores."""
        self.state = {name: scores.clone() for name, scores in state.items()}


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
