"""FLAP: the units whose output fluctuates least go, and a bias takes over their mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class Flap(PruningMethod):
    """Remove the heads and FFN neurons whose activations fluctuate least, and add their mean to the bias; no training, no labels.

    An, Zhao, Yu, Tang and Wang, "Fluctuation-based Adaptive Structured Pruning for Large Language Models", AAAI 2024,
    https://arxiv.org/abs/2312.11983: a column of an output projection scores the variance of what it reads times its
    squared norm (section 3.2), scores are standardised in every sublayer and compared across all of them (3.3), and the
    mean of what is removed goes through the projection into its bias (3.4). A head scores the mean of its columns.

    As published, one threshold is put on the standardised scores; here it is the lowest that a budget of MACs allows,
    where the paper counts parameters. Padding tokens count in no statistic.
    """

    name: ClassVar[str] = "flap"

    target: Target = Field(description="Fraction of the encoder's MACs to keep, e.g. {macs: 0.6}.")
    metric: Literal["wifv", "ifv"] = Field(
        default="wifv", description="Variance of a column's input, times its squared norm (published) or alone."
    )
    standardize: bool = Field(
        default=True, description="Compare z-scores of the sublayers, as published; else raw scores."
    )
    compensate: bool = Field(default=True, description="Add the mean of what is removed to the bias, as published.")

    @field_validator("target")
    @classmethod
    def _of_macs(cls, target: Target) -> Target:
        if target.macs is None:
            message = f"flap takes target.macs; got target.{target.amount}"
            raise ValueError(message)
        return target

    def prune(self, session: Session) -> Pruned:
        """Return masks that cost at most the target, and compensated biases."""
        from compressor_flap._numerics import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Flap
