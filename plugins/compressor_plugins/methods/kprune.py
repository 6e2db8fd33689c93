"""K-prune: retraining-free pruning that preserves a model's knowledge, sublayer by sublayer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class KPrune(PruningMethod):
    """Prune and re-fit one sublayer after the other, bottom to top, keeping what the model knows.

    Park, Choi and Kang, "Accurate Retraining-free Pruning for Pretrained Encoder-based Language Models", ICLR 2024,
    https://arxiv.org/abs/2308.03449. Knowledge of a unit = what the output loses without it (predictive: divergence
    from the dense outputs; no labels are used) plus what its own sublayer loses (representational: the energy of the
    unit's output). For each sublayer: search masks for it and all above by one threshold on knowledge per MAC (or parameter),
    keep the decision for this sublayer, remove its units, re-fit its output matrix toward the dense model's output.

    As published: ``measure: batch-gradient, refresh: 1``, batches of 32 and ``calibration: {tokens: 100000}``. The
    defaults differ where measurements say so (``benchmarks/LOG.md``): the divergence's curvature sees what its
    gradient cannot at the dense model, and measuring it once costs a third.
    Always different: an emptied sublayer keeps a re-fitted bias, a sublayer that loses nothing is re-fitted too,
    least squares has a ridge that held-out rows choose, in the last layer the tokens the task reads count, units
    above a sublayer are measured from its cached inputs, and the budget is never exceeded.
    """

    name: ClassVar[str] = "kprune"

    target: Target = Field(description="How much of the encoder's MACs or parameters to keep, e.g. {macs: 0.6}.")
    lam_pred: float = Field(default=1.0, ge=0, description="Weight of the predictive knowledge.")
    lam_rep: float = Field(
        default=2.5e-4,
        ge=0,
        description="Weight of the representational knowledge; without it the search tends to empty the top layer.",
    )
    mu: float | None = Field(
        default=None, gt=0, description="Balance of heads against neurons; default: the head width (64 for BERT-base)."
    )
    temperature: float = Field(default=2.0, gt=0, description="Softens the outputs whose divergence is measured.")
    measure: Literal["curvature", "gradient", "batch-gradient"] = Field(
        default="curvature",
        description="Predictive knowledge: the divergence's curvature at every row, its squared gradient at every row, "
        "or (as published) the squared gradient of every batch's mean.",
    )
    refresh: int = Field(
        default=0,
        ge=0,
        description="Sublayers between two measurements (1, as published: each); 0 = once, at the start.",
    )
    tuning: Literal["weights", "scales", "none"] = Field(
        default="weights",
        description="What least squares re-fits: output matrices and biases, one scale per kept unit, or nothing.",
    )

    @field_validator("target")
    @classmethod
    def _macs_or_params(cls, target: Target) -> Target:
        if target.amount not in {"macs", "params"}:
            message = f"kprune takes target.macs or target.params; got target.{target.amount}"
            raise ValueError(message)
        return target

    @model_validator(mode="after")
    def _measures_something(self) -> Self:
        if self.measure != "curvature" and not self.refresh:
            message = (
                f"measure: {self.measure} needs refresh: 1 or more; at the dense model the divergence has no gradient"
            )
            raise ValueError(message)
        return self

    def prune(self, session: Session) -> Pruned:
        """Return masks that cost at most the target, and re-fitted output weights."""
        from compressor_plugins.methods._kprune import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield KPrune
