"""Kwon et al.'s post-training pruning: Fisher mask search, rearrangement, tuning. No training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from compressor.plugin import Component, Pruned, PruningMethod, Target, hookimpl

if TYPE_CHECKING:
    from compressor.run.session import Session


class Fisher(PruningMethod):
    """Remove the heads and FFN neurons whose gates have the least Fisher information, then re-fit what is left.

    Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", NeurIPS 2022,
    https://arxiv.org/abs/2204.09656: importance of a unit = squared gradient of its gate over calibration rows
    (section 4.1), the best masks under a budget of MACs or parameters (algorithm 1), rearrangement inside each sublayer by the
    block-diagonal Fisher matrix (4.2), linear least squares layer by layer (4.3).

    As published: ``importance: batch-mean, tuning: scales, teacher: milder``. The defaults differ where measurements
    say so (``benchmarks/LOG.md``): the gradients of single rows do not depend on the batch size, and whole output
    matrices re-fitted toward the dense model bring the KL to it 3 to 8 times lower. On MRPC
    at 0.2 of the MACs the search empties the top layer, which no tuning brings back: ``floor: 0.01`` does not let it.
    Always different: a latency is met by a dynamic program over the table of ``compress profile`` (in the paper: by a
    piecewise linear fit), the budget is never exceeded, the bottom attention is tuned too, a correction that fails on
    held-out rows is replaced by a weaker one instead of ending the tuning, an emptied sublayer keeps a bias.
    """

    name: ClassVar[str] = "fisher"

    target: Target = Field(
        description="How much of the encoder's MACs or parameters to keep, or of the latency measured in onnxruntime, e.g. "
        "{macs: 0.6} or {latency: 0.6, batch: 1, sequence: 128}."
    )
    importance: Literal["per-sample", "batch-mean"] = Field(
        default="per-sample",
        description="Square the gate gradient of every row, or (as published) of every batch's mean loss.",
    )
    rearrange: bool = Field(
        default=True, description="Exchange units inside each sublayer to lower the block-diagonal Fisher form."
    )
    floor: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Least fraction of every sublayer's units to keep; where the budget has no room for all of it, for as "
        "many units as possible. 0, as published, may empty the layers that the task reads; 0.01 kept MRPC useful at 0.2 of "
        "the MACs and at 0.4 of the latency.",
    )
    tuning: Literal["weights", "scales", "none"] = Field(
        default="weights",
        description="What least squares re-fits: output matrices and biases, one scale per kept unit (as published), "
        "or nothing.",
    )
    teacher: Literal["dense", "milder"] = Field(
        default="dense",
        description="Whose outputs tuning aims at: the model as it comes in, or (as published) its masks of a search "
        "at sqrt(keep).",
    )
    projections: int = Field(
        default=4, ge=1, description="Random sign projections of the output per row, where the task has no labels."
    )

    @field_validator("target")
    @classmethod
    def _priced(cls, target: Target) -> Target:
        if target.amount not in {"macs", "params", "latency", "latency_ms"}:
            message = f"fisher takes target.macs, .params, .latency or .latency_ms; got target.{target.amount}"
            raise ValueError(message)
        return target

    @property
    def joint(self) -> bool:
        """Whether batches are divided among processes; not for a latency, which one process measures."""
        return not self.target.of_latency

    def prune(self, session: Session) -> Pruned:
        """Return masks that cost at most the target, and re-fitted output weights."""
        from compressor_plugins.methods._fisher import prune

        return prune(self, session)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the method."""
    yield Fisher
