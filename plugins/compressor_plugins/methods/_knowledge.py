"""What K-prune calls knowledge: how much the output, and how much its sublayer's own output, would miss a unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.outputs import raw_output
from compressor.prune import consumer_inputs, frozen, gate_products

if TYPE_CHECKING:
    from compressor.plugin import Task
    from compressor_plugins.methods.kprune import KPrune

TokenWeights = Callable[[PrunableGroup], Tensor]
PUBLISHED_BATCH = 32
SAMPLE_SCALE = PUBLISHED_BATCH**1.5
"""Squares of single rows' gradients are this much larger than the published squares of means over batches of 32
(between B, where the mean dominates, and B squared, where the variance does), so that ``lam_rep`` keeps its meaning."""


def coordinates(group: PrunableGroup) -> PrunableGroup:
    """Return the group with every column of its consumer as a unit: K-prune's gates of a head."""
    return replace(group, units=group.units * group.width, consumer=replace(group.consumer, width=1))


@dataclass
class Sums:
    """Of one group, over calibration rows.

    Attributes:
        squares: of gate gradients, shape (gates,): one per column, or one per unit.
        energy: of squared activations, weighted, per column, shape (units * width,).
        tokens: sum of the weights.
        rows: how many.
    """

    squares: Tensor
    energy: Tensor
    tokens: float = 0.0
    rows: int = 0

    @classmethod
    def zeros(cls, *, gates: int, columns: int, device: torch.device) -> Self:
        """Return the sums over nothing."""
        squares, energy = (torch.zeros(size, dtype=torch.float64, device=device) for size in (gates, columns))
        return cls(squares, energy)

    def add(self, activations: Tensor, weights: Tensor) -> None:
        """Take in what a consumer read, (B, T, columns), with token weights (B, T)."""
        tokens = weights > 0
        weight = weights[tokens].double()
        self.energy += weight @ activations[tokens].double().square()
        self.tokens += float(weight.sum())
        self.rows += len(activations)


class Measurement:
    """Knowledge of the units of some sublayers of a model as it is now: run batches through, then read the scores.

    Predictive: ``1/(2n) sum g^2`` of gate gradients g of the divergence from the dense outputs, per column (equation 5
    of the paper), or of its curvature, per unit, which is not zero while the outputs still agree. Representational:
    the energy of a unit's own output per token and coordinate (equation 6), cross terms between columns left out.

    Args:
        method: gives the hyper-parameters.
        task: gives outputs and divergences.
        model: in eval mode.
        groups: of this model, not empty.
        generator: of whatever the curvature draws.
    """

    def __init__(
        self,
        method: KPrune,
        task: Task,
        *,
        model: nn.Module,
        groups: Sequence[PrunableGroup],
        generator: np.random.Generator,
    ) -> None:
        self.method, self.task, self.model = method, task, model
        self.groups, self.generator = groups, generator
        whole = method.measure == "curvature"
        self.gates = [group if whole else coordinates(group) for group in groups]
        self.sums = {
            group.name: Sums.zeros(
                gates=gate.units, columns=group.units * group.width, device=next(model.parameters()).device
            )
            for group, gate in zip(groups, self.gates, strict=True)
        }

    def run(self, batch: Mapping[str, Tensor], dense: Tensor | None, weights: TokenWeights) -> Tensor:
        """Run one batch forward, and backward as often as needed; return the task's output z.

        Args:
            batch: on the model's device.
            dense: z of the dense model on it; None = this is the dense model, whose divergence has no gradient.
            weights: from a group to how much each token of its sublayer matters, shape (B, T).
        """
        backward = self.method.measure == "curvature" or dense is not None
        with frozen(self.model), consumer_inputs(self.model, self.groups) as read, torch.set_grad_enabled(backward):
            z = self.task.output(raw_output(self.model, batch), batch)
            if backward:
                self._square(gate_products(self._scalars(z, dense), self.gates, read))
            for group in self.groups:
                self.sums[group.name].add(read[group.name].detach(), weights(group))
        return z.detach()

    def _scalars(self, z: Tensor, dense: Tensor | None) -> Tensor:
        temperature = self.method.temperature
        if self.method.measure == "curvature" or dense is None:
            return self.task.curvature(z, temperature=temperature, generator=self.generator)
        return self.task.divergences(z, dense, temperature=temperature).unsqueeze(1)

    def _square(self, products: Mapping[str, Tensor]) -> None:
        for name, product in products.items():
            parts = product.double()
            if self.method.measure == "batch-gradient":
                parts = parts.mean(dim=0, keepdim=True)
            self.sums[name].squares += parts.square().sum(dim=(0, 1))

    def scores(self) -> dict[str, Tensor]:
        """Return the knowledge of every unit, float64, shape (units,) per group name; not yet divided by its cost."""
        return {group.name: self._score(group) for group in self.groups}

    def _score(self, group: PrunableGroup) -> Tensor:
        method, sums = self.method, self.sums[group.name]
        columns = self.model.get_parameter(f"{group.consumer.module}.weight").detach().double().square().mean(dim=0)
        energy = (sums.energy / sums.tokens * columns).reshape(group.units, group.width).mean(dim=1)
        scale = 1.0 if method.measure == "batch-gradient" else SAMPLE_SCALE
        # A head is the mean over its columns; the curvature of a whole head is divided to stand beside it.
        change = sums.squares.reshape(group.units, -1).sum(dim=1) / (2 * sums.rows * scale * group.width)
        balance = (method.mu or float(group.width)) if group.kind == "heads" else 1.0
        return (balance * (method.lam_pred * change + method.lam_rep * energy)).cpu()
