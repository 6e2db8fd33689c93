"""SparseGPT: zero weights in a pattern and let the others of the same output make up for them. No training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from compressor.plugin import Component, Pruned, hookimpl
from compressor_plugins.methods._weight_pruning import WeightPruning

if TYPE_CHECKING:
    from compressor.run.session import Session


class SparseGPT(WeightPruning):
    """Prune every weight against the Hessian of its own output's error, layer by layer, correcting what is left.

    Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023,
    https://arxiv.org/abs/2301.00774. A weight's cost is ``w^2 / U_jj^2``, U the upper Cholesky factor of the inverse Hessian;
    each block of columns loses its cheapest blocks over all rows, and the columns to the right are corrected.

    Different from the published program: the count is exact (its index takes one more in every block of columns), inputs are
    those of the model pruned so far, inside a layer too, and padding is left out; block patterns are taken. No labels are used.
    """

    name: ClassVar[str] = "sparsegpt"

    damping: float = Field(default=0.01, gt=0, description="Added to the Hessian, as a fraction of its mean diagonal.")
    block_columns: int = Field(default=128, ge=1, description="Columns that choose together which of them go.")

    @model_validator(mode="after")
    def _inside_columns(self) -> Self:
        if self.pattern.structured:
            message = f"sparsegpt takes patterns such as 1x1, 4x1 and 2:4; got {self.pattern.label}"
            raise ValueError(message)
        return self

    @property
    def joint(self) -> bool:
        """Whether batches are divided among processes: their Gram matrices add up."""
        return True

    def prune(self, session: Session) -> Pruned:
        """Return masks of weights, and the corrected weights."""
        from compressor_plugins.methods._sparsegpt import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield SparseGPT
