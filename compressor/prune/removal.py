"""Optimal Brain Surgeon on the inputs of a sublayer's output projection: which units go, in which order, at what loss.

Removing inputs S of a linear map W and re-fitting the others by least squares raises the squared error by exactly
``tr(W_S' (C_SS)^-1 W_S)``, C the inverse of the inputs' second moments, and changes W by ``-C_:S (C_SS)^-1 W_S``
(Hassibi and Stork, 1992; for groups of columns ZipLM, https://arxiv.org/abs/2302.04089, equations 1 and 2). Greedy
removal with downdates of C gives one nested order for every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.prune.solve import finite, ridged_factor

STEP = 0.04
"""Most of the units that are left that go at once: within a step, units do not know of each other."""
DEAD = 0.1
"""Share of a matrix that those who went may take up before it is cut down to the others."""


@dataclass(frozen=True)
class Removal:
    """The nested order in which a group loses its units.

    Attributes:
        order: unit numbers, the first to go first, shape (units,).
        counts: units left at every level, from all of them down to 0, shape (K,).
        losses: squared error at every level, the others re-fitted, shape (K,); 0 at the first.
        gram: second moments of the columns with their ridge, shape (columns, columns), float64.
        width: columns per unit.
    """

    order: Tensor
    counts: tuple[int, ...]
    losses: tuple[float, ...]
    gram: Tensor
    width: int

    def keep(self, count: int) -> Tensor:
        """Return the mask of the ``count`` units that go last, shape (units,)."""
        mask = torch.zeros(len(self.order), dtype=torch.bool)
        mask[self.order[len(self.order) - count :]] = True
        return mask

    def updated(self, weight: Tensor, count: int) -> Tensor:
        """Return the columns of an output matrix that stay, re-fitted for those that go: shape (D, count * width).

        Args:
            weight: of all columns, shape (D, columns).
            count: units left.
        """
        kept = self.keep(count).repeat_interleave(self.width).to(self.gram.device)
        stay, gone = kept.nonzero().flatten(), (~kept).nonzero().flatten()
        full = weight.detach().double()
        if not len(stay) or not len(gone) or not len(full):
            return full[:, stay]
        rows = self.gram[stay]
        lost = rows[:, gone] @ full[:, gone].T
        return full[:, stay] + torch.cholesky_solve(lost, torch.linalg.cholesky(rows[:, stay])).T


def remove_units(gram: Tensor, outputs: Tensor, *, width: int, counts: Sequence[int], ridge: float) -> Removal:
    """Remove all units of a group, those of least loss first, few at a time.

    Args:
        gram: second moments of the consumer's inputs (centred, where a bias is re-fitted), shape (columns, columns).
        outputs: what the columns add to the output, in coordinates in which squared errors count alike, shape
            (columns, R): ``W'`` itself, or ``W' G^(1/2)`` for errors weighted by G.
        width: columns per unit.
        counts: units left at every level below the first, descending to 0.
        ridge: relative to the mean diagonal of ``gram``; raised tenfold while that is not positive definite.

    Raises:
        CompressorError: the moments are not finite.
    """
    units = torch.arange(len(gram) // width, device=gram.device)
    if not (finite(gram) and finite(outputs)):
        raise CompressorError("removal: the activations or gradients of the calibration rows are not finite")
    ridged, factor = ridged_factor(gram.double(), ridge, float(gram.diagonal().mean()) or 1.0)
    left = _Left(units, units >= 0, torch.cholesky_inverse(factor), outputs.double().clone(), width)
    order: list[int] = []
    losses = [0.0]
    for count in counts:
        loss = losses[-1]
        while left.count > count:
            gone = left.cheapest(min(left.count - count, max(1, int(STEP * left.count))))
            order += left.places[gone].tolist()
            loss += left.remove(gone)
        losses.append(loss)
    return Removal(torch.tensor(order), (len(units), *counts), tuple(losses), ridged, width)


@dataclass
class _Left:
    """What is left of a group, and of those that went lately: matrices are cut down only now and then.

    Attributes:
        places: the unit at each place, ascending, shape (p,).
        stays: which of them are left, shape (p,).
        inverse: of the second moments of the columns that are left, shape (p * width, p * width); the other rows and
            columns are zero but for rounding.
        outputs: of the columns, the others' re-fitted into them, shape (p * width, R).
        width: columns per unit.
    """

    places: Tensor
    stays: Tensor
    inverse: Tensor
    outputs: Tensor
    width: int

    def __post_init__(self) -> None:
        """Count."""
        self.count = int(self.stays.sum())

    def cheapest(self, count: int) -> Tensor:
        """Return the places of the units that each alone cost least, ascending in cost, shape (count,)."""
        left = self.stays.nonzero().flatten()
        if self.width == 1:
            squares = torch.linalg.vector_norm(self.outputs, dim=1).square()
            losses = (squares / self.inverse.diagonal())[left]
        else:
            blocks = self.inverse.reshape(len(self.places), self.width, len(self.places), self.width)
            outputs = self.outputs.reshape(len(self.places), self.width, -1)[left]
            own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)[left]
            losses = (outputs * torch.linalg.solve(own, outputs)).sum(dim=(1, 2))
        ranked: Tensor = left[losses.argsort(stable=True)]
        return ranked[:count]

    def remove(self, gone: Tensor) -> float:
        """Remove units, re-fit the others, and return what that costs.

        Args:
            gone: their places, shape (n,).
        """
        columns = (gone.unsqueeze(1) * self.width + torch.arange(self.width, device=gone.device)).flatten()
        across, lost = self.inverse[columns], self.outputs[columns]
        moved = torch.linalg.solve(across[:, columns], torch.cat([lost, across], dim=1))
        share, shift = moved[:, : lost.shape[1]], moved[:, lost.shape[1] :]
        self.outputs.addmm_(across.T, share, alpha=-1)
        self.inverse.addmm_(across.T, shift, alpha=-1)
        self.stays[gone] = False
        self.count -= len(gone)
        if self.count < (1 - DEAD) * len(self.places):
            self._cut()
        return float((lost * share).sum())

    def _cut(self) -> None:
        rest = self.stays.repeat_interleave(self.width).nonzero().flatten()
        self.inverse, self.outputs = self.inverse[rest][:, rest], self.outputs[rest]
        self.places, self.stays = self.places[self.stays], self.stays[self.stays]
