"""Options about weights and blocks that settings of several methods share. Imports no torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

if TYPE_CHECKING:
    from compressor.model.weights import WeightFilter


def _regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        message = f"expected a regular expression, got {pattern!r}: {error}"
        raise ValueError(message) from error
    return pattern


Expression = Annotated[str, AfterValidator(_regular)]


class WeightChoice(BaseModel):
    """Which weights are meant."""

    op_names: tuple[Expression, ...] = Field(
        default=(), description="Regular expressions, searched in the layers' dotted names; none = every layer."
    )
    excluded_op_names: tuple[Expression, ...] = Field(
        default=("pooler",),
        description="Regular expressions of layers that stay dense. Embeddings always do, and the task head's last layer "
        "unless include_head.",
    )
    pruning_op_types: tuple[str, ...] = Field(
        default=("Linear",), description="Texts, one of which is part of the name of a layer's class."
    )
    include_head: bool = Field(default=False, description="Prune the task head's last layer too.")

    def chosen(self) -> WeightFilter:
        """Return which weights are meant."""
        from compressor.model.weights import WeightFilter

        return WeightFilter(
            op_names=self.op_names,
            excluded_op_names=self.excluded_op_names,
            pruning_op_types=self.pruning_op_types,
            include_head=self.include_head,
        )


class BlockComparison(BaseModel):
    """How blocks of weights are compared, and within which bounds."""

    sparsity_unit: Literal["elements", "blocks"] = Field(
        default="elements",
        description="What the target counts; in N:M always elements. neural-compressor counts blocks.",
    )
    criterion_reduce_type: Literal["mean", "sum", "max"] = Field(
        default="mean", description="From the scores of elements to that of their block."
    )
    min_sparsity_ratio_per_op: float = Field(default=0.0, ge=0, lt=1, description="Least that any layer loses.")
    max_sparsity_ratio_per_op: float = Field(default=0.98, gt=0, le=1, description="Most that any layer loses.")

    def bounds_contradict(self, sparsity: float) -> str:
        """Return what is wrong with a sparsity under these bounds, or nothing."""
        low, high = self.min_sparsity_ratio_per_op, self.max_sparsity_ratio_per_op
        if low <= sparsity <= high:
            return ""
        return (
            f"expected min_sparsity_ratio_per_op <= target.sparsity <= max_sparsity_ratio_per_op; "
            f"got {low:g}, {sparsity:g}, {high:g}"
        )
