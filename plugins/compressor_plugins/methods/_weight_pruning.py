"""The options that methods for single weights share: which weights, which pattern, how compared. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.plugin import Choice, PruningMethod, SparsityPattern, Target
from compressor_plugins.methods._weight_choice import BlockComparison, WeightChoice

if TYPE_CHECKING:
    from torch import nn


class WeightPruning(WeightChoice, PruningMethod):
    """Zeroes weights in a pattern; the option names are those of neural-compressor's pruning settings."""

    target: Target = Field(description="Fraction of the chosen weights' elements to remove, e.g. {sparsity: 0.5}.")
    pattern: Choice[SparsityPattern] = Field(
        description="Which weights go together: 2:4, 1x1, 4x1, 1xchannel, channelx1, 'keep 1 of 4'."
    )
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
        if self.permute and self.pattern.most >= 1:
            message = f"permute keeps more under N:M patterns such as 2:4; got pattern {self.pattern.label}"
            raise ValueError(message)
        return self

    def check(self, model: nn.Module) -> None:
        """Check that some layer is chosen and can take the pattern."""
        from compressor.model.weights import filtered_weights
        from compressor_plugins.methods._layouts import layouts_of

        layouts_of(model, filtered_weights(model, self.chosen()), self.pattern, self.name)

    @property
    def sparsity(self) -> float:
        """The fraction to remove."""
        return self.target.sparsity or 0.0


class Compared(BlockComparison, WeightPruning):
    """Adds how weights are compared, where a criterion scores them."""

    pruning_scope: Literal["global", "local", "row"] = Field(
        default="local",
        description="One threshold for all weights, one for each, or the same number in each row (output) of a weight.",
    )

    @model_validator(mode="after")
    def _within_the_bounds(self) -> Self:
        if message := self.bounds_contradict(self.sparsity):
            raise ValueError(message)
        return self
