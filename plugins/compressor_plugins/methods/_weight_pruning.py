"""The options that methods for single weights share: which weights, which pattern, how compared. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.plugin import Choice, PruningMethod, SparsityPattern, Target

if TYPE_CHECKING:
    from compressor.model.weights import WeightFilter


class WeightPruning(PruningMethod):
    """Zeroes weights in a pattern; the option names are those of neural-compressor's pruning settings."""

    target: Target = Field(description="Fraction of the chosen weights' elements to remove, e.g. {sparsity: 0.5}.")
    pattern: Choice[SparsityPattern] = Field(
        description="Which weights go together: 2:4, 1x1, 4x1, 1xchannel, channelx1, 'keep 1 of 4'."
    )
    op_names: tuple[str, ...] = Field(
        default=(), description="Regular expressions, searched in the layers' dotted names; none = every layer."
    )
    excluded_op_names: tuple[str, ...] = Field(
        default=("pooler",),
        description="Regular expressions of layers that stay dense. Embeddings always do, and the task head's last layer "
        "unless include_head.",
    )
    pruning_op_types: tuple[str, ...] = Field(
        default=("Linear",), description="Texts, one of which is part of the name of a layer's class."
    )
    include_head: bool = Field(default=False, description="Prune the task head's last layer too.")
    permute: bool = Field(
        default=False,
        description="For N:M: first reorder FFN neurons, and coordinates inside heads, so that more magnitude is kept. The "
        "dense model computes the same in the new order.",
    )

    @field_validator("target")
    @classmethod
    def _of_elements(cls, target: Target) -> Target:
        if target.sparsity is None:
            message = f"{cls.name} takes target.sparsity; got target.{target.amount}"
            raise ValueError(message)
        return target

    @model_validator(mode="after")
    def _within_the_pattern(self) -> Self:
        if self.sparsity > self.pattern.most:
            message = (
                f"pattern {self.pattern.label} removes at most {self.pattern.most:g}; got sparsity {self.sparsity:g}"
            )
            raise ValueError(message)
        return self

    @property
    def sparsity(self) -> float:
        """The fraction to remove."""
        return self.target.sparsity or 0.0

    def chosen(self) -> WeightFilter:
        """Return which weights are meant."""
        from compressor.model.weights import WeightFilter

        return WeightFilter(
            op_names=self.op_names,
            excluded_op_names=self.excluded_op_names,
            pruning_op_types=self.pruning_op_types,
            include_head=self.include_head,
        )


class Compared(WeightPruning):
    """Adds how weights are compared, where a criterion scores them."""

    pruning_scope: Literal["global", "local", "row"] = Field(
        default="local",
        description="One threshold for all weights, one for each, or the same number in each row (output) of a weight.",
    )
    sparsity_unit: Literal["elements", "blocks"] = Field(
        default="elements", description="What the target counts; in N:M always elements."
    )
    criterion_reduce_type: Literal["mean", "sum", "max"] = Field(
        default="mean", description="From the scores of elements to that of their block."
    )
    min_sparsity_ratio_per_op: float = Field(default=0.0, ge=0, lt=1, description="Least that any layer loses.")
    max_sparsity_ratio_per_op: float = Field(default=0.98, gt=0, le=1, description="Most that any layer loses.")

    @model_validator(mode="after")
    def _within_the_bounds(self) -> Self:
        low, high = self.min_sparsity_ratio_per_op, self.max_sparsity_ratio_per_op
        if not low <= self.sparsity <= high:
            message = (
                f"expected min_sparsity_ratio_per_op <= target.sparsity <= max_sparsity_ratio_per_op; "
                f"got {low:g}, {self.sparsity:g}, {high:g}"
            )
            raise ValueError(message)
        return self
