"""The settings of one gradual pruner, by neural-compressor's names and ours. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from compressor.plugin import Choice, Criterion, SparsityPattern, Target
from compressor_plugins.criteria.snip import SnipMomentum
from compressor_plugins.methods._gradual_names import own_names
from compressor_plugins.methods._weight_choice import BlockComparison, WeightChoice
from compressor_plugins.patterns.block import Block


class PrunerOptions(WeightChoice, BlockComparison):
    """Which weights, in which pattern, by which score, how many and when.

    ``pruning_type`` and ``target_sparsity`` are neural-compressor's names of ``criterion`` and ``target``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Target = Field(
        default=Target(sparsity=0.9), description="Fraction of the chosen weights to remove, e.g. {sparsity: 0.5}."
    )
    pattern: Choice[SparsityPattern] | None = Field(
        default=None,
        description="Which weights go together: 4x1 (where nothing is said), 1x1, 2:4, 1xchannel, channelx1.",
    )
    criterion: Choice[Criterion] = Field(
        default=SnipMomentum(), description="What scores weights, from weights and gradients as training goes on."
    )
    progressive: bool = Field(
        default=False,
        description="Between two events, zero the next event's weights in four parts, lowest score first; for blocks of four or "
        "more.",
    )
    pattern_lock: bool = Field(
        default=False,
        description="Prune nothing: keep the zeros that are there, which follow the pattern, in training.",
    )
    pruning_scope: Literal["global", "local"] = Field(
        default="global", description="One threshold for all weights of this pruner, or one for each."
    )
    sparsity_decay_type: Literal["exp", "cos", "linear", "cube", "cubic"] = Field(
        default="exp",
        description="Sparsity on the way: exp and cubic (Zhu and Gupta's) begin fast, cos and neural-compressor's cube slow.",
    )
    pruning_frequency: int = Field(
        default=-1, ge=-1, description="Optimizer steps from one pruning to the next; -1 = about 40 prunings."
    )
    sparsity_warm_epochs: float = Field(default=0.0, ge=0, description="Dense epochs before the first pruning.")
    cooldown_epochs: float = Field(default=0.0, ge=0, description="Epochs with fixed masks after the last pruning.")
    start_step: int | None = Field(default=None, ge=0, description="First step of pruning, instead of warm epochs.")
    end_step: int | None = Field(
        default=None, ge=0, description="Last step of pruning, instead of cool-down epochs; start_step = all at once."
    )
    reg_type: Literal["group_lasso"] | None = Field(
        default=None,
        description="Shrink whole blocks while pruning: w_block *= max(0, 1 - lr * reg_coeff / ||w_block||).",
    )
    reg_coeff: float = Field(default=0.0, ge=0, description="Strength of reg_type.")
    pruning_type: str | None = Field(
        default=None,
        exclude=True,
        description="neural-compressor's name of criterion, with _progressive at its end, or pattern_lock.",
    )
    target_sparsity: float | None = Field(
        default=None, exclude=True, description="neural-compressor's name of target.sparsity."
    )

    @model_validator(mode="before")
    @classmethod
    def _by_own_names(cls, data: Any) -> Any:
        return own_names(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _of_elements(self) -> Self:
        if self.target.sparsity is None:
            message = f"expected target.sparsity; got target.{self.target.amount}"
            raise ValueError(message)
        if "activations" in self.criterion.needs:
            message = f"expected a criterion of weights and gradients; {self.criterion.name} reads activations"
            raise ValueError(message)
        for one, other in (("start_step", "sparsity_warm_epochs"), ("end_step", "cooldown_epochs")):
            if getattr(self, one) is not None and getattr(self, other):
                message = f"expected {one} or {other}; got both"
                raise ValueError(message)
        return self

    @property
    def sparsity(self) -> float:
        """The fraction to remove."""
        return self.target.sparsity or 0.0

    def contradiction(self, epochs: float | None) -> str:
        """Return what is wrong with the amounts taken together, in a training of so many epochs; nothing, if all is well."""
        if message := self.bounds_contradict(self.sparsity):
            return message
        pattern = self.chosen_pattern
        if self.sparsity > pattern.most:
            return f"pattern {pattern.label} removes at most {pattern.most:g}; got sparsity {self.sparsity:g}"
        dense = self.sparsity_warm_epochs + self.cooldown_epochs
        if epochs is not None and dense >= epochs:
            return f"expected sparsity_warm_epochs + cooldown_epochs below train.epochs; got {dense:g} of {epochs:g}"
        return ""

    @property
    def chosen_pattern(self) -> SparsityPattern:
        """The pattern; 4x1 where nothing is said."""
        return self.pattern or Block(rows=4)


class PrunerBlock(PrunerOptions):
    """One of several pruners: what is given here wins over the method's own options."""

    @model_serializer(mode="wrap")
    def _only_given(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not given here: read back, it is the method's own again."""
        return {name: value for name, value in handler(self).items() if name in self.model_fields_set}
