"""Optimal Brain Surgeon for one weight, column by column: prune, and let the columns to the right make up for it.

Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2023,
https://arxiv.org/abs/2301.00774.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.model.blocks import Blocks


@dataclass(frozen=True, kw_only=True)
class Surgery:
    """What to remove from a weight.

    Attributes:
        blocks: how it is cut.
        sparsity: fraction of its elements to remove.
        damping: fraction of the Hessian's mean diagonal that is added to it.
        columns: how many columns choose their mask together, and pass their errors on together.
    """

    blocks: Blocks
    sparsity: float
    damping: float = 0.01
    columns: int = 128

    @property
    def step(self) -> int:
        """Columns that choose together: whole blocks of them."""
        return max(1, self.columns // self.blocks.columns) * self.blocks.columns


@dataclass
class Budget:
    """Blocks to remove, so that the total over all steps is exact: what one step rounds away the next ones get."""

    fraction: float
    seen: int = field(default=0, init=False)
    spent: int = field(default=0, init=False)

    def take(self, blocks: int) -> int:
        """Return how many of the next ``blocks`` go."""
        self.seen += blocks
        count = min(blocks, math.floor(self.fraction * self.seen + 0.5) - self.spent)
        self.spent += count
        return count


@torch.no_grad()
def prune_weight(weight: Tensor, hessian: Tensor, surgery: Surgery) -> tuple[Tensor, Tensor]:
    """Remove elements of a weight and correct those to the right of them.

    With ``U`` the upper Cholesky factor of the damped inverse Hessian, an element costs ``w^2 / U_jj^2``. Inside a step of
    columns the cheapest blocks over all rows go, each step the same fraction, the whole exactly the asked count; N:M
    chooses at every run. Columns whose input is always zero cost next to nothing, and go first.

    Args:
        weight: shape (out, in); stays as it is.
        hessian: of the squared error, up to a factor: the Gram matrix of the inputs, shape (in, in).
        surgery: what to remove.

    Returns:
        The new weight, zero where it is removed, and the mask, ``True`` = keep, both (out, in), on the weight's device.

    Raises:
        CompressorError: the Hessian is not that of finite inputs.
    """
    factor = inverse_factor(hessian, surgery.damping)
    new, blocks = weight.double().clone(), surgery.blocks
    mask = torch.ones_like(weight, dtype=torch.bool)
    budget = Budget(min(1.0, surgery.sparsity * blocks.size / blocks.dropped))
    for start in range(0, weight.shape[1], surgery.step):
        stop = min(start + surgery.step, weight.shape[1])
        errors = torch.zeros_like(new[:, start:stop])
        inner = range(start, stop, blocks.columns) if blocks.partial else (start,)
        for column in range(start, stop):
            if column in inner:
                end = column + blocks.columns if blocks.partial else stop
                mask[:, column:end] = _mask(new[:, column:end], factor.diagonal()[column:end], blocks, budget)
            error = torch.where(mask[:, column], 0.0, new[:, column]) / factor[column, column]
            new[:, column:stop] -= error.unsqueeze(1) * factor[column, column:stop]
            errors[:, column - start] = error
        new[:, stop:] -= errors @ factor[start:stop, stop:]
    return new.masked_fill(~mask, 0.0).to(weight.dtype), mask


def inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """Return the upper Cholesky factor of a damped Hessian's inverse, float64, shape (in, in).

    Raises:
        CompressorError: it cannot be factored.
    """
    damped = hessian.double().clone()
    mean = damped.diagonal().mean()
    damped.diagonal().add_(damping * mean if mean > 0 else 1.0)
    lower, failed = torch.linalg.cholesky_ex(damped)
    if bool(failed) or not bool(damped.isfinite().all()):
        raise CompressorError(f"the Hessian of {len(hessian)} inputs cannot be factored; expected finite inputs")
    factor: Tensor = torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    return factor


def _mask(weight: Tensor, diagonal: Tensor, blocks: Blocks, budget: Budget) -> Tensor:
    """Return which elements of some columns stay: the cheapest blocks go, of equal ones the first."""
    costs = (weight / diagonal).square()
    reduced = blocks.reduce(costs, "sum")
    removed = torch.zeros_like(reduced, dtype=torch.bool)
    removed[reduced.argsort(stable=True)[: budget.take(len(reduced))]] = True
    return blocks.expand(removed, costs)
