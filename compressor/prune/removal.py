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

STEP = 0.02
"""Most of the units that are left that go at once: within a step, units do not know of each other."""


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
        stay = self.keep(count).repeat_interleave(self.width).to(self.gram.device)
        full = weight.detach().double()
        gone = self.gram[stay][:, ~stay] @ full[:, ~stay].T
        if not count or not len(gone.T) or bool(stay.all()):
            return full[:, stay]
        return full[:, stay] + torch.cholesky_solve(gone, torch.linalg.cholesky(self.gram[stay][:, stay])).T


def remove_units(gram: Tensor, outputs: Tensor, *, width: int, counts: Sequence[int], ridge: float) -> Removal:
    """Remove all units of a group, those of least loss first, few at a time.

    Args:
        gram: second moments of the consumer's inputs (centred, where a bias is re-fitted), shape (columns, columns).
        outputs: what the columns add to the output, in coordinates in which squared errors count alike, shape
            (columns, R): ``W'`` itself, or ``W' G^(1/2)`` for errors weighted by G.
        width: columns per unit.
        counts: units left at every level below the first, descending to 0.
        ridge: relative to the mean diagonal of ``gram``.

    Raises:
        CompressorError: the moments are not finite.
    """
    units = len(gram) // width
    if not (torch.isfinite(gram).all() and torch.isfinite(outputs).all()):
        raise CompressorError("removal: the activations or gradients of the calibration rows are not finite")
    scale = float(gram.diagonal().mean()) or 1.0
    ridged = gram.double() + ridge * scale * torch.eye(len(gram), dtype=torch.float64, device=gram.device)
    left = _Left(torch.arange(units, device=gram.device), torch.linalg.inv(ridged), outputs.double(), width)
    order: list[int] = []
    losses = [0.0]
    for count in counts:
        loss = losses[-1]
        while len(left.units) > count:
            gone = left.cheapest(min(len(left.units) - count, max(1, int(STEP * len(left.units)))))
            order += left.units[gone].tolist()
            loss += left.remove(gone)
        losses.append(loss)
    return Removal(torch.tensor(order), (units, *counts), tuple(losses), ridged, width)


@dataclass
class _Left:
    """What is left of a group.

    Attributes:
        units: their numbers, ascending, shape (u,).
        inverse: of the second moments of their columns, shape (u * width, u * width).
        outputs: of their columns, the others' re-fitted into them, shape (u * width, R).
        width: columns per unit.
    """

    units: Tensor
    inverse: Tensor
    outputs: Tensor
    width: int

    def cheapest(self, count: int) -> Tensor:
        """Return the positions of the units that each alone cost least, ascending in cost, shape (count,)."""
        blocks = self.inverse.reshape(len(self.units), self.width, len(self.units), self.width)
        own = blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        outputs = self.outputs.reshape(len(self.units), self.width, -1)
        losses = (outputs * torch.linalg.solve(own, outputs)).sum(dim=(1, 2))
        ranked: Tensor = losses.argsort(stable=True)
        return ranked[:count]

    def remove(self, gone: Tensor) -> float:
        """Remove units, re-fit the others, and return what that costs.

        Args:
            gone: positions among those that are left, shape (n,).
        """
        stay = torch.ones(len(self.units), dtype=torch.bool, device=gone.device)
        stay[gone] = False
        columns = (gone.unsqueeze(1) * self.width + torch.arange(self.width, device=gone.device)).flatten()
        rest = stay.repeat_interleave(self.width).nonzero().flatten()
        block, lost = self.inverse[columns][:, columns], self.outputs[columns]
        across = self.inverse[rest][:, columns]
        moved = torch.linalg.solve(block, torch.cat([lost, across.T], dim=1))
        share, shift = moved[:, : lost.shape[1]], moved[:, lost.shape[1] :]
        self.units = self.units[stay]
        self.outputs = self.outputs[rest] - across @ share
        self.inverse = self.inverse[rest][:, rest] - across @ shift
        return float((lost * share).sum())
