"""K-prune: retraining-free pruning that preserves a model's knowledge, sublayer by sublayer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class KPrune(PruningMethod):
    """Prune and re-fit one sublayer after the other, bottom to top, measuring anew what the units above still know.

    Park, Choi and Kang, "Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models", ICLR 2024,
    https://arxiv.org/abs/2308.03449.
    """

    name: ClassVar[str] = "kprune"

    target: Target = Field(description="How much of the encoder's MACs to keep, e.g. {macs: 0.6}.")
    lam_pred: float = Field(default=1.0, ge=0, description="Weight of the predictive knowledge.")
    lam_rep: float = Field(default=2.5e-4, ge=0, description="Weight of the representational knowledge.")
    mu: float | None = Field(
        default=None, gt=0, description="Balance of heads against neurons; default: the head width (64 for BERT-base)."
    )
    temperature: float = Field(default=2.0, gt=0, description="Softens the outputs that the divergence compares.")
    measure: Literal["gradient", "curvature"] = Field(
        default="gradient",
        description="Predictive knowledge: squared gradients of the divergence from the dense outputs (as published; "
        "zero at the first sublayer), or the divergence's curvature.",
    )
    refresh: int = Field(
        default=1,
        ge=0,
        description="Sublayers between two measurements (1, as published: each); 0 = once, at the start.",
    )
    importance: Literal["per-sample", "batch-mean"] = Field(
        default="per-sample",
        description="Square the gate gradient of every row, or (as published) of every batch's mean.",
    )
    tuning: Literal["weights", "scales", "none"] = Field(
        default="weights",
        description="What least squares re-fits: output matrices and biases, one scale per kept unit, or nothing.",
    )

    @field_validator("target")
    @classmethod
    def _macs_only(cls, target: Target) -> Target:
        if target.amount != "macs":
            message = f"kprune takes target.macs; got target.{target.amount}"
            raise ValueError(message)
        return target

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if self.measure == "gradient" and self.refresh == 0:
            message = "refresh: 0 needs measure: curvature; gradients of the divergence are zero at the dense model"
            raise ValueError(message)
        return self

    def prune(self, session: Session) -> Pruned:
        """Return masks that keep at most ``target.macs`` of the dense model's MACs, and re-fitted output weights."""
        from compressor_plugins.methods._kprune import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield KPrune
