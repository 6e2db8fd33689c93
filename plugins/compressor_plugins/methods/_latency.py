"""Masks for a latency target: a dynamic program over measured block costs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError
from compressor.prune import level_masks
from compressor_plugins.methods._budget import Budget, linear_budget

if TYPE_CHECKING:
    from compressor.model.groups import PrunableGroup
    from compressor.model.latency_table import LatencyTable
    from compressor.model.masks import Masks, Scores
    from compressor.plugin import Target
    from compressor.run.session import Session

ALIGNMENT = 16
"""FFN widths in multiples of this: what lies between costs as much as the next one."""
MOST_LEVELS = 64


@dataclass(frozen=True)
class LatencyBudget:
    """A measured table, and how much of the dense model's time is asked for.

    Attributes:
        table: of the model's architecture, on this machine.
        dense_ms: what the dense model takes, as the table says.
        keep: fraction of it that is asked for.
    """

    table: LatencyTable
    dense_ms: float
    keep: float

    def at(self, keep: float) -> float:
        """Return what may be spent on sublayers when a fraction of the time is kept, in milliseconds."""
        return self.table.spendable(keep * self.dense_ms)

    def costs(self, group: PrunableGroup, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what keeping so many units of a group costs, in milliseconds, shape (K,)."""
        return self.table.curve(group.kind)[counts]

    def masks(self, session: Session, scores: Scores, keep: float) -> Masks:
        """Return the masks of least lost score that take at most ``keep`` of the dense model's time.

        Kwon et al.'s latency mode (section 4.1 of the paper) with the table itself in place of a piecewise linear fit:
        any sublayer may be emptied, no width need be dearer than a smaller one.
        """
        counts = {group.name: _counts(group) for group in session.groups}
        return level_masks(session.groups, scores, counts=counts, prices=self.costs, budget=self.at(keep))

    def figures(self, session: Session, masks: Masks) -> dict[str, Any]:
        """Return what was asked, what the table predicts for the masks, and at which workload, as plain data."""
        predicted = self.table.predict([(g.kind, int(masks.keep[g.name].sum())) for g in session.groups])
        ratios = {"asked": self.keep, "predicted": predicted / self.dense_ms, "predicted_ms": predicted}
        return {"latency_target": {**ratios, **asdict(self.table.workload)}}


def _counts(group: PrunableGroup) -> NDArray[np.int64]:
    """Return how many units a group may keep: any number of heads, a grid of neurons."""
    step = 1
    if group.kind == "ffn_neurons":
        step = ALIGNMENT * math.ceil(group.units / (ALIGNMENT * MOST_LEVELS))
    return np.unique(np.append(np.arange(0, group.units, step, dtype=np.int64), group.units))


def latency_budget(target: Target, session: Session, sequence: float) -> LatencyBudget:
    """Measure (or read) the table that a target needs.

    Args:
        target: of ``latency`` or ``latency_ms``.
        session: gives the model, and the dense one that fractions are of.
        sequence: tokens per sample.

    Raises:
        InputError: not even the model with every head and neuron removed is as fast.
    """
    table = session.latency_table(
        batch=target.batch, sequence=math.ceil(sequence), threads=target.threads, provider=target.provider
    )
    dense = table.predict([(group.kind, group.units) for group in session.family.groups(session.teacher)])
    keep = target.latency or (target.latency_ms or dense) / dense
    if table.spendable(keep * dense) < 0:
        lowest = table.fixed_ms / dense
        raise InputError(
            f"target {target!r} cannot be met: at {table.workload} the dense model takes {dense:.3g} ms, with every head "
            f"and neuron removed {table.fixed_ms:.3g} ms; lowest reachable ratio: {lowest:.3f}",
            hint=f"ask for latency: {math.ceil(100 * lowest + 1) / 100} or more; compress profile shows the costs",
        )
    return LatencyBudget(table, dense, min(keep, 1.0))


def budget_of(target: Target, session: Session, sequence: float) -> Budget | LatencyBudget:
    """Return what may be spent; a latency is measured now, so that one out of reach stops the run before any pruning."""
    return (latency_budget if target.of_latency else linear_budget)(target, session, sequence)
