"""Which correction of a sublayer's output projection is taken: the strongest that held-out rows confirm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compressor.model.groups import PrunableGroup
from compressor.prune.sharing import Share
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

Tuning = Literal["weights", "scales", "none"]
Solver = Callable[[Moments, float], Correction]

HELD_OUT = 8
"""One row in so many is kept from the fit: it chooses the ridge, and whether a sublayer's correction is taken."""
RIDGES = (1e-7, 1e-5, 1e-3, 1e-2, 1e-1)
"""Candidates, relative to the mean diagonal of the normal matrix; held-out rows choose."""
STRONG_RIDGES = (1e-1, 1.0)
"""Candidates where the present weights are a re-fit already: weaker ones fit what only the calibration rows have."""
FALLBACKS: Mapping[Tuning, tuple[Tuning, ...]] = {"weights": ("weights", "scales"), "scales": ("scales",), "none": ()}


@dataclass(frozen=True)
class Evidence:
    """Moments of a sublayer over the rows to fit, and over those held out (none, of fewer than 8 rows)."""

    train: Moments
    held: Moments

    @classmethod
    def empty(cls, columns: int, outputs: int, device: torch.device, *, intercept: bool = True) -> Evidence:
        """Return moments of nothing, of activations of shape (tokens, columns) and errors of shape (tokens, outputs)."""
        return cls(*(Moments(columns, outputs, device, intercept=intercept) for _ in range(2)))

    def add(self, activations: Tensor, errors: Tensor, *, weights: Tensor, held: Tensor) -> None:
        """Take in one batch.

        Args:
            activations: shape (B, T, columns).
            errors: shape (B, T, outputs).
            weights: how much every token counts, shape (B, T); 0 = not at all.
            held: which rows are held out, shape (B,).
        """
        for moments, rows in ((self.train, ~held), (self.held, held)):
            tokens = (weights > 0) & rows.unsqueeze(1)
            moments.add(activations[tokens], errors[tokens], weights[tokens])

    @property
    def judge(self) -> Moments:
        """Return the moments that corrections are judged by."""
        return self.held if self.held.weight else self.train

    def summed(self, share: Share) -> Evidence:
        """Return the moments over the rows of all processes."""
        return Evidence(self.train.summed(share), self.held.summed(share))

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


def held_out(first: int, count: int, device: torch.device) -> Tensor:
    """Return which of ``count`` rows are held out, shape (count,), the first of them being row number ``first``."""
    return torch.arange(first, first + count, device=device) % HELD_OUT == HELD_OUT - 1


def kept_columns(group: PrunableGroup, keep: Tensor) -> Tensor:
    """Return the indices of the consumer's columns that a mask of shape (units,) keeps."""
    return keep.repeat_interleave(group.width).nonzero().flatten()


def best_correction(
    group: PrunableGroup, tuning: Tuning, weight: Tensor, evidence: Evidence, *, whole: bool = False
) -> tuple[Correction | None, SublayerFit]:
    """Return the first correction, from strong to weak, that lowers the error on held-out rows, at its best ridge.

    Args:
        group: whose sublayer it is.
        tuning: the strongest to try; a sublayer without units has only its bias.
        weight: the output matrix's columns that are left, shape (D, columns).
        evidence: of these columns.
        whole: whether the ridges are the strong ones, and what was chosen is fitted again to all rows, the held-out ones
            among them.
    """
    before = residual(evidence.judge)
    for name, solve in _solvers(group, tuning, weight):
        ridges = (0.0,) if name == "bias" else STRONG_RIDGES if whole else RIDGES
        best, ridge, error = _best_ridge(evidence, solve, ridges)
        if error < before:
            chosen = solve(evidence.train + evidence.held, ridge) if whole else best
            return chosen, SublayerFit(group.name, name, ridge, before, error)
    return None, SublayerFit(group.name, "none", None, before, before)


def corrected_inputs(group: PrunableGroup, evidence: Evidence) -> tuple[Correction | None, SublayerFit]:
    """Return the linear map that brings a sublayer's inputs closer to the teacher's, where held-out rows confirm one.

    Args:
        group: whose sublayer it is.
        evidence: of what the student's sublayer reads, and of what the teacher's reads minus that.
    """
    before = residual(evidence.judge)
    _, ridge, error = _best_ridge(evidence, _solve_weights, STRONG_RIDGES)
    if error < before:
        chosen = _solve_weights(evidence.train + evidence.held, ridge)
        return chosen, SublayerFit(group.name, "weights", ridge, before, error)
    return None, SublayerFit(group.name, "none", None, before, before)


def _solve_weights(moments: Moments, ridge: float) -> Correction:
    return solve_weights(moments, ridge=ridge)


def _best_ridge(evidence: Evidence, solve: Solver, ridges: Sequence[float]) -> tuple[Correction, float, float]:
    """Return the correction of least error on the rows that judge, its ridge and that error."""
    tried = {ridge: solve(evidence.train, ridge) for ridge in ridges}
    errors = {ridge: residual(evidence.judge, correction) for ridge, correction in tried.items()}
    best = min(errors, key=errors.__getitem__)
    return tried[best], best, errors[best]


def _solvers(group: PrunableGroup, tuning: Tuning, weight: Tensor) -> list[tuple[Tuning | Literal["bias"], Solver]]:
    if not weight.shape[1]:
        return [("bias", lambda moments, _: solve_bias(moments))]
    solvers: dict[Tuning, Solver] = {
        "weights": _solve_weights,
        "scales": lambda moments, ridge: solve_scales(moments, weight, width=group.width, ridge=ridge),
    }
    return [(name, solvers[name]) for name in FALLBACKS[tuning]]
