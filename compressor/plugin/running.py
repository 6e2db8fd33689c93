"""A criterion at work in one function, for criteria that are no more than that. Importing this module does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from compressor.plugin.criterion import CriterionRun

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.model.masks import Scores

Update = Callable[["Tensor", "Tensor"], "Tensor"]


class RunningScores(CriterionRun):
    """Element scores ``s <- decay * s + update(weight, gradient)``, from 0; kept whole, reduced to blocks by whoever asks.

    Args:
        targets: shapes, by name, as ``start`` is given them.
        update: from a weight and its gradient (the weight itself, where none is needed), both detached and of shape
            (out, in), to what is added to its scores.
        decay: what is left of the old score; 0 = of the last observation alone.
        gradients: whether weights without a gradient are passed over: they have no score then.
    """

    def __init__(
        self, targets: Mapping[str, tuple[int, ...]], update: Update, *, decay: float, gradients: bool = True
    ) -> None:
        self.targets, self.update, self.decay, self.gradients = targets, update, decay, gradients
        self.state: dict[str, Tensor] = {}

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
