"""How a weight is cut into blocks that live or die together: a view, its reduction, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "sum", "max"]


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``rows`` x ``columns`` elements, row of blocks by row of blocks.

    Removing a block zeroes its ``dropped`` elements of lowest score: all of them, except in N:M, whose blocks are runs of
    M inputs of one output, each either dense or N:M.

    Attributes:
        rows: consecutive outputs.
        columns: consecutive inputs.
        dropped: elements that go with a block.
    """

    rows: int
    columns: int
    dropped: int

    @property
    def size(self) -> int:
        """Elements of a block."""
        return self.rows * self.columns

    @property
    def partial(self) -> bool:
        """Whether some of a removed block's elements stay (N:M)."""
        return self.dropped < self.size

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of blocks of a weight of shape (out, in), which divides."""
        return shape[0] // self.rows, shape[1] // self.columns

    def view(self, weight: Tensor) -> Tensor:
        """Return a weight, shape (out, in), as blocks, shape (blocks, rows * columns)."""
        down, across = self.grid(tuple(weight.shape))
        cut = weight.reshape(down, self.rows, across, self.columns)
        return cut.permute(0, 2, 1, 3).reshape(down * across, self.size)

    def unview(self, blocks: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return blocks, shape (blocks, rows * columns), as the weight they were cut from, shape (out, in)."""
        down, across = self.grid(shape)
        return blocks.reshape(down, across, self.rows, self.columns).permute(0, 2, 1, 3).reshape(shape)

    def reduce(self, scores: Tensor, how: Reduction = "mean") -> Tensor:
        """Return the score of every block, shape (blocks,), over the elements that would go.

        Args:
            scores: of the elements, shape (out, in).
            how: mean, sum or max.
        """
        cut = self.view(scores)
        if self.partial:
            cut = cut.topk(self.dropped, dim=1, largest=False).values
        if how == "max":
            return cut.amax(dim=1)
        return cut.mean(dim=1) if how == "mean" else cut.sum(dim=1)

    def expand(self, removed: Tensor, scores: Tensor) -> Tensor:
        """Return the mask of the weight, shape (out, in), ``True`` = keep.

        Args:
            removed: which blocks go, shape (blocks,).
            scores: of the elements, shape (out, in): inside an N:M block the lowest go, of equal ones the first.
        """
        goes = removed.unsqueeze(1).expand(-1, self.size)
        if self.partial:
            order = self.view(scores).argsort(dim=1, stable=True)[:, : self.dropped]
            lowest = goes.new_zeros(goes.shape).scatter(1, order, value=True)
            goes = goes & lowest
        return ~self.unview(goes, tuple(scores.shape))

    def holds(self, mask: Tensor) -> bool:
        """Tell whether every block of a mask, shape (out, in), is either whole or removed as the pattern says."""
        gone = (~self.view(mask)).sum(dim=1)
        return bool(((gone == 0) | (gone == self.dropped)).all())
