"""Whole rows or whole columns of a weight: output channels, input channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from compressor.plugin import Component, SparsityPattern, hookimpl

if TYPE_CHECKING:
    from compressor.model.blocks import Blocks


class OutputChannel(SparsityPattern):
    """A whole row of a weight, one output channel, lives or dies together.

    FFN neurons and heads that lose all their rows are taken out of the model, what they still give (the activation of a
    bias) folded into the next bias; rows that the residual stream reads stay as zeros.
    """

    name: ClassVar[str] = "1xchannel"
    structured: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """The name."""
        return self.name

    def blocks(self, shape: tuple[int, int]) -> Blocks | None:
        """Return the rows of a weight."""
        from compressor.model.blocks import Blocks

        return Blocks(1, shape[1], shape[1])


class InputChannel(SparsityPattern):
    """A whole column of a weight, one input channel, lives or dies together.

    FFN neurons and heads whose columns are all gone are taken out of the model, exactly; columns that read the residual
    stream stay as zeros.
    """

    name: ClassVar[str] = "channelx1"
    structured: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """The name."""
        return self.name

    def blocks(self, shape: tuple[int, int]) -> Blocks | None:
        """Return the columns of a weight."""
        from compressor.model.blocks import Blocks

        return Blocks(shape[0], 1, shape[0])


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the patterns."""
    yield OutputChannel
    yield InputChannel
