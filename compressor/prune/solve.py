"""Least squares on sufficient statistics: what correction of a sublayer's output projection undoes its error.

Everything is written for the *correction*, not for the weights: with activations a_t (what the kept units give), the
projection's present output o_t and the wished-for output r_t, the error is e_t = r_t - o_t, and we look for dW, db with
least ``sum_t w_t |e_t - dW a_t - db|^2``. Nothing to correct then means e = 0 exactly, and the ridge pulls toward the
present weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.prune.sharing import Share

_RIDGE_LIMIT = 1e6
_LEAST_RIDGE = 1e-14
_TINY = 1e-300
_BLOCK = 128
"""Columns of a Gram matrix at a time: what lies between them and the accumulator stays in the cache."""
_TOKENS = 512
"""Most tokens that are summed up in the dtype that is given."""


class Moments:
    """Weighted second moments of activations and errors, accumulated in float64.

    Of the Gram matrix only the blocks on and above the diagonal are summed up; reading it fills in the others.

    Attributes:
        weight: sum of the token weights.
        activations: sum of w a, shape (columns,).
        errors: sum of w e, shape (D,).
        gram: sum of w a a', shape (columns, columns).
        cross: sum of w a e', shape (columns, D).
        squared: sum of w e'e.
        intercept: whether there is a bias to correct; many layers have none.
    """

    def __init__(self, columns: int, outputs: int, device: torch.device, *, intercept: bool = True) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.intercept = intercept
        self.weight = 0.0
        self.squared = 0.0
        self.activations = zeros(columns)
        self.errors = zeros(outputs)
        self.cross = zeros(columns, outputs)
        self._gram = zeros(columns, columns)
        self._halved = False

    @property
    def gram(self) -> Tensor:
        """Return the Gram matrix itself, no copy."""
        if self._halved:
            for first, behind in self._blocks():
                self._gram[behind:, first:behind] = self._gram[first:behind, behind:].T
            self._halved = False
        return self._gram

    def _blocks(self) -> Iterator[tuple[int, int]]:
        return ((first, first + _BLOCK) for first in range(0, len(self._gram), _BLOCK))

    def add(self, activations: Tensor, errors: Tensor, weights: Tensor) -> None:
        """Take in tokens.

        Args:
            activations: shape (tokens, columns).
            errors: shape (tokens, D).
            weights: shape (tokens,), not negative.

        Products are formed in the dtype that is given and added in float64.
        """
        a, e = activations, errors
        counted = weights.double()
        self.weight += float(counted.sum())
        self.activations += _sums(a, weights)
        self.errors += _sums(e, weights)
        if not bool((weights == 1).all()):
            root = weights.to(a).sqrt().unsqueeze(1)
            a, e = a * root, e * root
        self.squared += float(torch.linalg.vector_norm(e, dtype=torch.float64).square())
        for first, behind in self._blocks():
            block = a[:, first:behind].T
            self._gram[first:behind, first:] += block @ a[:, first:]
            self.cross[first:behind] += block @ e
        self._halved = True

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of tokens."""
        both = Moments(len(self.activations), len(self.errors), self.gram.device, intercept=self.intercept)
        both._gram = self.gram + other.gram
        for name in ("weight", "squared", "activations", "errors", "cross"):
            setattr(both, name, getattr(self, name) + getattr(other, name))
        return both

    def summed(self, share: Share) -> Moments:
        """Return the moments of the tokens of all processes."""
        total = Moments(0, 0, self.gram.device, intercept=self.intercept)
        total._gram = share.summed(self.gram)
        for name in ("activations", "errors", "cross"):
            setattr(total, name, share.summed(getattr(self, name)))
        total.weight, total.squared = share.summed(self.errors.new_tensor([self.weight, self.squared])).tolist()
        return total

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
        left = Moments(len(columns), len(self.errors), self.gram.device, intercept=self.intercept)
        left.weight = self.weight
        left.activations = self.activations[columns]
        left.errors = self.errors + lost @ self.activations[gone]
        left._gram = self.gram[columns][:, columns]
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


def _sums(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sums of columns in float64, shape (columns,), without a float64 copy of the values."""
    sums = torch.zeros(values.shape[1], dtype=torch.float64, device=values.device)
    counted = weights.to(values)
    for first in range(0, len(values), _TOKENS):
        some = slice(first, first + _TOKENS)
        sums += torch.mv(values[some].T, counted[some])
    return sums


def solve_weights(moments: Moments, *, ridge: float) -> Correction:
    """Correct the whole matrix by ridge regression toward the present weights, and the bias, which no ridge holds.

    Args:
        moments: of the rows to fit; centred here, so that the bias needs no unknown of its own.
        ridge: relative to the mean diagonal of the normal matrix; raised tenfold while it is not positive definite.
    """
    none = torch.zeros_like(moments.errors)
    if not moments.weight:
        return Correction(torch.zeros_like(moments.cross).T, none)
    if not moments.intercept:
        return Correction(_ridge_solve(moments.gram, moments.cross, ridge).T, none)
    mean = moments.activations / moments.weight
    gram = moments.gram.addr(mean, moments.activations, alpha=-1)
    cross = moments.cross.addr(mean, moments.errors, alpha=-1)
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
    """Correct the bias alone, where there is one: all that an emptied sublayer has left."""
    bias = moments.errors / max(moments.weight, _TINY)
    return Correction(torch.zeros_like(moments.cross).T, bias if moments.intercept else torch.zeros_like(bias))


def _ridge_solve(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    """Solve ``(matrix + ridge * mean diagonal * I) x = right``; see ``ridged_factor``."""
    if not len(matrix):
        return right
    if not (finite(matrix) and finite(right)):
        raise CompressorError("least squares: the activations or errors of the calibration rows are not finite")
    scale = float(matrix.diagonal().mean())
    if scale <= 0:
        return torch.zeros_like(right)
    _, factor = ridged_factor(matrix, ridge, scale)
    return torch.cholesky_solve(right, factor)


def finite(tensor: Tensor) -> bool:
    """Return whether all elements are finite, at the cost of a sum."""
    return bool(torch.isfinite(tensor.sum()))


def ridged_factor(matrix: Tensor, ridge: float, scale: float) -> tuple[Tensor, Tensor]:
    """Return ``matrix + ridge * scale * I`` and its lower Cholesky factor, raising the ridge tenfold until there is one.

    Args:
        matrix: symmetric, float64, finite, shape (n, n).
        ridge: relative to ``scale``.
        scale: positive.

    Raises:
        CompressorError: no ridge within reason is enough.
    """
    ridge = max(ridge, _LEAST_RIDGE)
    while ridge < _RIDGE_LIMIT:
        ridged = matrix.clone()
        ridged.diagonal().add_(ridge * scale)
        factor, failed = torch.linalg.cholesky_ex(ridged)
        if not failed:
            return ridged, factor
        ridge *= 10
    raise CompressorError("least squares: the normal matrix has large negative eigenvalues")
