"""From a target to prices of units and a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import InputError
from compressor.model.costs import parameter_prices, priced, unit_prices
from compressor.prune import search_masks

if TYPE_CHECKING:
    from compressor.model.groups import PrunableGroup, UnitKind
    from compressor.model.masks import Masks, Scores
    from compressor.plugin import Target
    from compressor.run.session import Session


@dataclass(frozen=True)
class Budget:
    """What units cost, and what may be spent.

    Attributes:
        prices: of one unit, per kind: MACs per sample, or parameters.
        keep: fraction of ``dense`` that is asked for, in (0, 1].
        dense: what all units of the dense model cost.
    """

    prices: Mapping[UnitKind, float]
    keep: float
    dense: float

    def at(self, keep: float) -> float:
        """Return what may be spent when a fraction is kept."""
        return keep * self.dense

    def costs(self, group: PrunableGroup, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what keeping so many units of a group costs, shape (K,)."""
        return self.prices[group.kind] * counts.astype(np.float64)

    def masks(self, session: Session, scores: Scores, keep: float) -> Masks:
        """Return the masks of largest kept score that cost at most a fraction of the dense model."""
        return search_masks(session.groups, scores, prices=self.prices, budget=self.at(keep))

    def figures(self, session: Session, masks: Masks) -> dict[str, Any]:  # noqa: ARG002 - a latency budget reads them
        """Return nothing: what MACs and parameters come to is in every report."""
        return {}


def linear_budget(target: Target, session: Session, sequence: float) -> Budget:
    """Return the budget of a target on MACs or parameters: fractions of the *dense* model, whatever is left of it now.

    Args:
        target: of ``macs`` or ``params``.
        session: gives the model and the dense one it came from.
        sequence: tokens per sample that MACs are counted at.

    Raises:
        InputError: the model that the run started from has no unit left.
    """
    groups, dense = session.groups, session.family.groups(session.teacher)
    if target.macs is not None:
        prices = unit_prices(session.model, groups, sequence)
        whole = unit_prices(session.teacher, dense, sequence)
    else:
        prices, whole = parameter_prices(session.model, groups), parameter_prices(session.teacher, dense)
    total = priced(whole, [(group.kind, group.units) for group in dense])
    if not total:
        raise InputError(
            f"{session.plan.recipe.model}: every head and every FFN neuron is gone already; there is nothing left to prune"
        )
    return Budget(prices, target.macs or target.params or 1.0, total)


def sequence_of(target: Target, session: Session) -> float:
    """Return the tokens per sample that a target is counted at."""
    return target.sequence or session.calibration.mean_length
