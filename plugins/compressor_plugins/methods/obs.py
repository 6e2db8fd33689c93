"""Our own training-free method: Optimal Brain Surgeon in the metric of the output's curvature, exact allocation, re-fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class Obs(PruningMethod):
    """Remove units by Optimal Brain Surgeon, divide the budget exactly, and correct every sublayer on the student's inputs.

    One pass over the dense model measures how each sublayer's inputs vary, and which errors of its output the model's
    output feels (the curvature of the divergence from the dense output; no labels). In that metric heads and neurons
    are removed greedily, the others re-fitted for each that goes (as ZipLM, https://arxiv.org/abs/2302.04089), which gives one
    nested order and the loss at every size. A dynamic program (as SPDY, https://arxiv.org/abs/2201.13096) divides MACs,
    parameters or measured latency among all sublayers; any of them may go as a whole. Then, bottom to top, the inputs of
    each sublayer are mapped back to the dense model's and its output matrix and bias are re-fitted on the student's own
    inputs; held-out rows choose the ridges and whether a correction is taken.

    The pass and the orders serve every target: ``compress sweep`` does them once for a whole family of models.
    """

    name: ClassVar[str] = "obs"

    target: Target = Field(
        description="How much of the encoder's MACs or parameters to keep, or of the latency measured in onnxruntime, e.g. "
        "{macs: 0.6} or {latency: 0.6, batch: 1, sequence: 128}."
    )
    temperature: float = Field(
        default=2.0,
        gt=0,
        description="Softens the class probabilities whose divergence is measured: at 1 the rows that the model is sure of, "
        "most of the training rows, say next to nothing.",
    )
    projections: int = Field(
        default=4, ge=1, description="Random projections of the output per row, where the task has no classes."
    )
    ridge: float = Field(
        default=1e-2,
        ge=1e-6,
        description="Added to the inputs' covariance before units are removed, relative to its mean diagonal.",
    )
    undo_drift: bool = Field(
        default=True,
        description="Map what a sublayer reads back to what it reads in the dense model before re-fitting.",
    )

    @field_validator("target")
    @classmethod
    def _priced(cls, target: Target) -> Target:
        if target.amount not in {"macs", "params", "latency", "latency_ms"}:
            message = f"obs takes target.macs, .params, .latency or .latency_ms; got target.{target.amount}"
            raise ValueError(message)
        return target

    def prune(self, session: Session) -> Pruned:
        """Return masks that cost at most the target, and corrected weights."""
        return next(iter(self.prune_all(session, [self.target])))

    def prune_all(self, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
        """Yield what each target gives; one dense pass, one order and one teacher serve all of them."""
        from compressor_plugins.methods._obs import prune_all

        return prune_all(self, session, targets)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Obs
