"""Depth pruning: leave out the layers that the output misses least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class DropLayers(PruningMethod):
    """Remove whole layers, those without which the output stays closest to the dense model's. Nothing is re-fitted.

    Sajjad, Dalvi, Durrani and Nakov, "On the Effect of Dropping Layers of Pre-trained Transformer Models", 2020,
    https://arxiv.org/abs/2004.03844, drop layers by position (best: the top ones) and fine-tune. Here a layer's score is
    the mean over calibration rows of the divergence of the output without it from the dense output; no labels are used.
    Layers above a left-out one run from cached hidden states, batch by batch.
    What is left is a plain checkpoint: fewer layers one after the other, which masks of heads and neurons do not give.
    """

    name: ClassVar[str] = "drop-layers"

    target: Target = Field(
        description="Fraction of the dense model's layers to keep, rounded down to whole layers, e.g. {layers: 0.5}."
    )
    search: Literal["greedy", "once"] = Field(
        default="greedy",
        description="Measure the layers that are left anew after each removal, or all of them once.",
    )

    @field_validator("target")
    @classmethod
    def _of_layers(cls, target: Target) -> Target:
        if target.amount != "layers":
            message = f"drop-layers takes target.layers; got target.{target.amount}"
            raise ValueError(message)
        return target

    def prune(self, session: Session) -> Pruned:
        """Return the layers that go."""
        return next(self.prune_all(session, [self.target]))

    def prune_all(self, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
        """Yield the layers that go for each target: a search that drops more begins as one that drops fewer."""
        from compressor_plugins.methods._drop_layers import prune_all

        return prune_all(self, session, targets)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield DropLayers
