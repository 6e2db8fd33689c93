"""What ``obs`` makes of one target: a share for every sublayer, the student to start from, the figures of the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.model import Masks, shrink
from compressor.model.regrow import full_weights
from compressor.plugin import Pruned
from compressor.prune import Levels, Removal, choose_levels
from compressor_plugins.methods._budget import Budget, sequence_of
from compressor_plugins.methods._latency import LatencyBudget
from compressor_plugins.methods._report import figures

if TYPE_CHECKING:
    from compressor.model.groups import PrunableGroup
    from compressor.plugin import Target
    from compressor.prune import Student, SublayerStatistics
    from compressor.run.session import Session


@dataclass(frozen=True)
class Point:
    """One target's share of every sublayer.

    Attributes:
        orders: by group name.
        counts: units left, by group name; 0 of those that were emptied before.
        budget: that they keep.
        predicted: divergence per row that the losses add up to.
    """

    orders: Mapping[str, Removal]
    counts: Mapping[str, int]
    budget: Budget | LatencyBudget
    predicted: float

    @classmethod
    def of(cls, session: Session, orders: Mapping[str, Removal], budget: Budget | LatencyBudget) -> Point:
        """Divide a budget among the sublayers."""
        groups = [group for group in session.groups if group.units]
        tables = []
        for group in groups:
            levels = np.array(orders[group.name].counts)
            tables.append(Levels(levels, budget.costs(group, levels), np.array(orders[group.name].losses)))
        chosen = choose_levels(tables, budget.at(budget.keep))
        pairs = list(zip(groups, tables, chosen, strict=True))
        counts = dict.fromkeys((group.name for group in session.groups), 0)
        counts |= {group.name: int(table.counts[level]) for group, table, level in pairs}
        return cls(orders, counts, budget, float(sum(table.losses[level] for _, table, level in pairs)))

    @property
    def masks(self) -> Masks:
        """Return what stays."""
        nothing = torch.zeros(0, dtype=torch.bool)
        orders = self.orders
        return Masks({name: orders[name].keep(n) if name in orders else nothing for name, n in self.counts.items()})

    def start(self, session: Session, statistics: Mapping[str, SublayerStatistics]) -> nn.Module:
        """Return the pruned model with every sublayer re-fitted to the dense model's inputs."""
        weights: dict[str, Tensor] = {}
        for group in session.groups:
            if group.units:
                order, count = self.orders[group.name], self.counts[group.name]
                weights |= updated(session.model, group, order.keep(count), order, statistics[group.name])
        return shrink(session.model, session.family, self.masks, weights)

    def pruned(self, session: Session, student: Student, target: Target, seconds: Mapping[str, float]) -> Pruned:
        """Return the result, and what it is worth saying of it."""
        masks = self.masks
        metrics: dict[str, Any] = {
            **figures(session, masks, student.fits, sequence_of(target, session)),
            **self.budget.figures(session, masks),
            "drift": [asdict(fit) for fit in student.drifts],
            "predicted_divergence": self.predicted,
            "seconds": dict(seconds),
        }
        return Pruned(masks, full_weights(session.model, session.groups, student.model, masks.keep), metrics)


def updated(
    model: nn.Module, group: PrunableGroup, keep: Tensor, order: Removal, statistics: SublayerStatistics
) -> dict[str, Tensor]:
    """Return a consumer's matrix and bias, in full shape, re-fitted for the units that go."""
    name = group.consumer.module
    present = model.get_parameter(f"{name}.weight").detach()
    weight, before = present.clone(), present.double()  # which may be the parameter itself
    stay = keep.repeat_interleave(group.width).to(weight.device)
    weight[:, stay] = order.updated(before, int(keep.sum())).to(weight)
    after = weight.double() * stay
    result = {f"{name}.weight": weight}
    consumer: Any = model.get_submodule(name)
    if consumer.bias is not None:
        shift = (before - after) @ statistics.mean
        result[f"{name}.bias"] = (consumer.bias.detach().double() + shift).to(weight)
    return result
