"""Least squares on sufficient statistics: what correction of a sublayer's output projection undoes its error.

Everything is written for the *correction*, not for the weights: with activations a_t (what the kept units give), the
projection's present output o_t and the wished-for output r_t, the error is e_t = r_t - o_t, and we look for dW, db with
least ``sum_t w_t |e_t - dW a_t - db|^2``. Nothing to correct then means e = 0 exactly, and the ridge pulls toward the
present weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import CompressorError

_RIDGE_LIMIT = 1e6
_TINY = 1e-300


class Moments:
    """Weighted second moments of activations and errors, accumulated in float64.

    Attributes:
        weight: sum of the token weights.
        activations: sum of w a, shape (columns,).
        errors: sum of w e, shape (D,).
        gram: sum of w a a', shape (columns, columns).
        cross: sum of w a e', shape (columns, D).
        squared: sum of w e'e.
    """

    def __init__(self, columns: int, outputs: int, device: torch.device) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.weight = 0.0
        self.squared = 0.0
        self.activations = zeros(columns)
        self.errors = zeros(outputs)
        self.gram = zeros(columns, columns)
        self.cross = zeros(columns, outputs)

    def add(self, activations: Tensor, errors: Tensor, weights: Tensor) -> None:
        """Take in tokens.

        Args:
            activations: shape (tokens, columns).
            errors: shape (tokens, D).
            weights: shape (tokens,), not negative.

        Products are formed in the dtype that is given and added in float64.
        """
        root = weights.to(activations).sqrt().unsqueeze(1)
        a, e = activations * root, errors * root
        self.weight += float(weights.double().sum())
        self.squared += float(e.double().square().sum())
        self.activations += (a * root).sum(dim=0, dtype=torch.float64)
        self.errors += (e * root).sum(dim=0, dtype=torch.float64)
        self.gram += a.T @ a
        self.cross += a.T @ e

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of tokens."""
        both = Moments(len(self.activations), len(self.errors), self.gram.device)
        for name in vars(self):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def kept(self, columns: Tensor, weight: Tensor) -> Moments:
        """Return the moments of some columns when the others are removed and their output joins the error.

        One pass over the tokens thus serves every choice of units: nothing has to run again.

        Args:
            columns: indices of those that stay.
            weight: the output matrix that gave the errors, shape (D, all columns).
        """
        gone = torch.ones(len(self.activations), dtype=torch.bool, device=self.gram.device)
        gone[columns] = False
        lost = weight.detach().to(self.gram)[:, gone]
        left = Moments(len(columns), len(self.errors), self.gram.device)
        left.weight = self.weight
        left.activations = self.activations[columns]
        left.errors = self.errors + lost @ self.activations[gone]
        left.gram = self.gram[columns][:, columns]
        left.cross = self.cross[columns] + self.gram[columns][:, gone] @ lost.T
        own = (lost @ self.gram[gone][:, gone] * lost).sum()
        left.squared = self.squared + float(own + 2 * (lost.T * self.cross[gone]).sum())
        return left


@dataclass(frozen=True)
class Correction:
    """What is added to an output projection: ``weight`` (D, columns) and ``bias`` (D,), float64."""

    weight: Tensor
    bias: Tensor


def residual(moments: Moments, correction: Correction | None = None) -> float:
    """Return the mean squared error per token, summed over coordinates, that a correction leaves (None: none made)."""
    if not moments.weight:
        return 0.0
    total = moments.squared
    if correction is not None:
        weight, bias = correction.weight, correction.bias
        predicted = weight @ moments.activations
        total += float((weight @ moments.gram * weight).sum() + moments.weight * bias.square().sum())
        total += float(2 * (bias @ predicted) - 2 * (weight.T * moments.cross).sum() - 2 * (bias @ moments.errors))
    return max(total, 0.0) / moments.weight


def solve_weights(moments: Moments, *, ridge: float) -> Correction:
    """Correct the whole matrix by ridge regression toward the present weights, and the bias, which no ridge holds.

    Args:
        moments: of the rows to fit; centred here, so that the bias needs no unknown of its own.
        ridge: relative to the mean diagonal of the normal matrix; raised tenfold while it is not positive definite.
    """
    if not moments.weight:
        return Correction(torch.zeros_like(moments.cross).T, torch.zeros_like(moments.errors))
    mean = moments.activations / moments.weight
    gram = moments.gram - torch.outer(mean, moments.activations)
    cross = moments.cross - torch.outer(mean, moments.errors)
    weight = _ridge_solve(gram, cross, ridge).T
    return Correction(weight, (moments.errors - weight @ moments.activations) / moments.weight)


def solve_scales(moments: Moments, weight: Tensor, *, width: int, ridge: float) -> Correction:
    """Correct one factor per unit (Kwon et al.'s mask tuning): unit i's columns become s_i times what they are.

    The normal matrix over scales is the Hadamard product of ``W'W`` and the activations' Gram, summed over the
    coordinates of each unit, so the explicit (tokens * D) x units design is never formed. The bias stays: re-fitted
    together with so few unknowns, it draws every output to the calibration rows' mean (measured: worse than nothing).

    Args:
        moments: of the rows to fit.
        weight: the present output matrix, kept columns only, shape (D, units * width).
        width: columns per unit.
        ridge: relative to the mean diagonal of the normal matrix, toward scales of one.
    """
    weight = weight.double()
    units = weight.shape[1] // width
    normal = ((weight.T @ weight) * moments.gram).reshape(units, width, units, width).sum(dim=(1, 3))
    right = (weight.T * moments.cross).sum(dim=1).reshape(units, width).sum(dim=1, keepdim=True)
    change = _ridge_solve(normal, right, ridge).flatten().repeat_interleave(width)
    return Correction(weight * change, torch.zeros_like(moments.errors))


def solve_bias(moments: Moments) -> Correction:
    """Correct the bias alone: all that an emptied sublayer has left."""
    return Correction(torch.zeros_like(moments.cross).T, moments.errors / max(moments.weight, _TINY))


def _ridge_solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve ``(matrix + ridge * mean diagonal * I) x = right`` by Cholesky, raising the ridge until that works.

    Raises:
        CompressorError: the matrix is not finite.
    """
    if not len(matrix):
        return right
    if not (torch.isfinite(matrix).all() and torch.isfinite(right).all()):
        raise CompressorError("least squares: the activations or errors of the calibration rows are not finite")
    scale = float(matrix.diagonal().mean())
    if scale <= 0:
        return torch.zeros_like(right)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    ridge = max(ridge, 1e-14)
    while ridge < _RIDGE_LIMIT:
        factor, failed = torch.linalg.cholesky_ex(matrix + ridge * scale * identity)
        if not failed:
            return torch.cholesky_solve(right, factor)
        ridge *= 10
    raise CompressorError("least squares: the normal matrix has large negative eigenvalues")
