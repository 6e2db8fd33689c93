"""The options of CAP's two kinds of back ends. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from compressor_plugins.methods._weight_choice import WeightChoice

CUTS, REFRESH = 9, 25

Percentage = Annotated[float, Field(gt=0, lt=100)]


class CutOptions(BaseModel):
    """How heads and neurons go: in cuts, each followed by a training."""

    percentages: tuple[Percentage, ...] | None = Field(
        default=None,
        description="Of first-order: percent of all heads, and of all neurons, that are gone after each cut, e.g. [10, 20, 30]; "
        "instead of target.",
    )
    cuts: int = Field(
        default=CUTS, ge=1, description="Of first-order with a target: cuts to it, in equal steps of cost."
    )
    importance: Literal["batch-mean", "per-sample"] = Field(
        default="batch-mean",
        description="Of first-order: absolute gate gradient of every batch's mean loss, as published, or of every row's; summed.",
    )
    importance_samples: int | None = Field(
        default=None, ge=1, description="Of first-order: rows in training that importance is measured on; default: all."
    )
    normalize_by_layer: bool | None = Field(
        default=None,
        description="Of first-order: divide a layer's importance by its norm. Default: with percentages, as published, and not with a "
        "target, where heads and neurons are compared.",
    )
    min_heads: int = Field(default=1, ge=0, description="Of first-order: heads that every layer keeps.")

    @model_validator(mode="after")
    def _on_the_way(self) -> Self:
        if self.percentages is not None and (
            not self.percentages or list(self.percentages) != sorted(set(self.percentages))
        ):
            message = f"expected percentages that rise, such as [10, 20, 30]; got {list(self.percentages)}"
            raise ValueError(message)
        return self


class ScoreOptions(WeightChoice):
    """How single weights go: by a score each, from a threshold that moves as training goes on."""

    pruning_scope: Literal["local", "global"] = Field(
        default="local", description="Of magnitude and movement: the same fraction of each weight, or one cut over all."
    )
    refresh: int = Field(
        default=REFRESH, ge=1, description="Optimizer steps between two cuts over all weights (scope global)."
    )
    score_learning_rate: float = Field(
        default=1e-2, gt=0, description="Of movement and soft-movement: highest learning rate of the scores."
    )
    initial_warmup: float = Field(
        default=1.0, ge=0, description="Of scores: how many times the warm-up of the learning rate nothing is pruned."
    )
    final_warmup: float = Field(
        default=2.0,
        ge=0,
        description="Of scores: how many times the warm-up of the learning rate the end lasts, at full sparsity.",
    )
    final_threshold: float = Field(
        default=0.1, gt=0, lt=1, description="Of soft-movement: what the sigmoid of a kept score exceeds in the end."
    )
    final_lambda: float | None = Field(
        default=None,
        ge=0,
        description="Of soft-movement: weight, in the end, of the mean sigmoid of the scores in the loss, which decides the sparsity.",
    )
    freeze_embeddings: bool = Field(default=True, description="Of scores: leave the embeddings as they are.")
