"""Blocks of N outputs by M inputs; ``1x1`` is single weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin import Component, SparsityPattern, hookimpl

if TYPE_CHECKING:
    from compressor.model.blocks import Blocks


class Block(SparsityPattern):
    """Blocks of so many consecutive outputs by so many consecutive inputs live or die together.

    Written ``4x1`` (four outputs that share one input), ``1x4`` (four inputs of one output), ``1x1`` (single weights,
    unstructured). Weights whose shape does not divide are skipped.
    """

    name: ClassVar[str] = "block"
    spelling: ClassVar[str] = r"[1-9][0-9]*x[1-9][0-9]*"

    rows: int = Field(default=1, ge=1, description="Consecutive outputs of a block.")
    columns: int = Field(default=1, ge=1, description="Consecutive inputs of a block.")

    @classmethod
    def spelled(cls, text: str) -> dict[str, Any]:
        """Return rows and columns of ``4x1``."""
        rows, _, columns = text.partition("x")
        return {"rows": int(rows), "columns": int(columns)}

    @property
    def label(self) -> str:
        """``4x1`` and the like."""
        return f"{self.rows}x{self.columns}"

    def blocks(self, shape: tuple[int, int]) -> Blocks | None:
        """Return the blocks of a weight, None where it does not divide into them."""
        from compressor.model.blocks import Blocks

        if shape[0] % self.rows or shape[1] % self.columns:
            return None
        return Blocks(self.rows, self.columns, self.rows * self.columns)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the pattern."""
    yield Block
