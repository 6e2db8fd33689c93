"""Which correction of a sublayer's output projection is taken: the strongest that held-out rows confirm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressor.model.groups import PrunableGroup
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

Tuning = Literal["weights", "scales", "none"]
Solver = Callable[[float], Correction]

RIDGES = (1e-7, 1e-5, 1e-3, 1e-2, 1e-1)
"""Candidates, relative to the mean diagonal of the normal matrix; held-out rows choose."""
FALLBACKS: Mapping[Tuning, tuple[Tuning, ...]] = {"weights": ("weights", "scales"), "scales": ("scales",), "none": ()}


@dataclass(frozen=True)
class Evidence:
    """Moments of a sublayer over the rows to fit, and over those held out (none, of fewer than 8 rows)."""

    train: Moments
    held: Moments

    def kept(self, columns: Tensor, weight: Tensor) -> Evidence:
        """Return what is left when only some columns of the output matrix ``weight`` stay; see ``Moments.kept``."""
        return Evidence(self.train.kept(columns, weight), self.held.kept(columns, weight))


@dataclass(frozen=True)
class SublayerFit:
    """What became of one sublayer; errors are squared, per token, over the held-out rows."""

    group: str
    accepted: Tuning | Literal["bias"]
    ridge: float | None
    error_before: float
    error_after: float


def kept_columns(group: PrunableGroup, keep: Tensor) -> Tensor:
    """Return the indices of the consumer's columns that a mask of shape (units,) keeps."""
    return keep.repeat_interleave(group.width).nonzero().flatten()


def best_correction(
    group: PrunableGroup, tuning: Tuning, weight: Tensor, evidence: Evidence
) -> tuple[Correction | None, SublayerFit]:
    """Return the first correction, from strong to weak, that lowers the error on held-out rows, at its best ridge.

    Args:
        group: whose sublayer it is.
        tuning: the strongest to try; a sublayer without units has only its bias.
        weight: the output matrix's columns that are left, shape (D, columns).
        evidence: of these columns.
    """
    judge = evidence.held if evidence.held.weight else evidence.train
    before = residual(judge)
    for name, solve in _solvers(group, tuning, weight, evidence.train):
        tried = {ridge: solve(ridge) for ridge in (RIDGES if name != "bias" else (0.0,))}
        errors = {ridge: residual(judge, correction) for ridge, correction in tried.items()}
        best = min(errors, key=errors.__getitem__)
        if errors[best] < before:
            return tried[best], SublayerFit(group.name, name, best, before, errors[best])
    return None, SublayerFit(group.name, "none", None, before, before)


def _solvers(
    group: PrunableGroup, tuning: Tuning, weight: Tensor, train: Moments
) -> list[tuple[Tuning | Literal["bias"], Solver]]:
    if not weight.shape[1]:
        return [("bias", lambda _: solve_bias(train))]
    solvers: dict[Tuning, Solver] = {
        "weights": lambda ridge: solve_weights(train, ridge=ridge),
        "scales": lambda ridge: solve_scales(train, weight, width=group.width, ridge=ridge),
    }
    return [(name, solvers[name]) for name in FALLBACKS[tuning]]
