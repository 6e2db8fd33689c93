"""Int8 files: weights in 8 bits, activations in 8 bits as they come or by calibration.

Both are made from the portable file. The fused one is never quantised: its int8 form was measured slower than the portable one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from compressor.cpu import cpu_features, cpu_name, saturates
from compressor.plugin import Component, Quantizer, hookimpl
from compressor.progress import announced

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.model.artifact import Artifact
    from compressor.plugin import QuantizationData

SATURATES = "has no VNNI, and its 16-bit sums of 8-bit products saturate"


class _Int8(Quantizer):
    """What both have in common."""

    embeddings: bool = Field(
        default=False, description="Quantise embedding tables too: a smaller file, neither faster nor slower."
    )
    per_channel: bool = Field(
        default=True,
        description="A scale for every output of a weight, not one for all: as fast, and rows with outliers spoil no others.",
    )
    reduce_range: bool | Literal["auto"] = Field(
        default="auto",
        validate_default=True,
        description="7 bits for weights: for CPUs without VNNI, where sums of 8-bit products saturate. "
        "auto: whether this machine's CPU is such a one; the lock file has what it was.",
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="Most that quantising may cost of the metric, absolute; layers stay float32 until it is met. "
        "Default: all are quantised.",
    )
    samples: int = Field(default=512, ge=1, description="Validation examples that max_drop is measured on.")

    @field_validator("reduce_range")
    @classmethod
    def _resolved(cls, value: bool | Literal["auto"]) -> bool:  # noqa: FBT001  # pydantic calls it
        """Return what is done here: digests, stages and the lock file then hold it, and a replay makes the same bytes."""
        return saturates(cpu_features()) if value == "auto" else value

    def check(self) -> None:
        """Say in how many bits weights are stored, and why; warn where this CPU's sums of products saturate."""
        features = cpu_features()
        known = "needs no fewer" if features else "does not say whether it needs fewer"
        said = "%s: weights in %d bits (reduce_range: %s): this CPU, %s, %s"
        bits = (7, "true") if self.reduce_range else (8, "false")
        if not saturates(features):
            announced.info(said, self.name, *bits, cpu_name(), known)
        elif self.reduce_range:
            announced.info(said, self.name, *bits, cpu_name(), SATURATES)
        else:
            announced.warning(f"{said}; next step: reduce_range: true", self.name, *bits, cpu_name(), SATURATES)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.samples != type(self).model_fields["samples"].default and self.max_drop is None:  # a lock file has both
            message = "expected samples with max_drop, whose drop they measure; got samples alone"
            raise ValueError(message)
        return self


class Int8Dynamic(_Int8):
    """Quantise weights to signed 8 bits; activations are quantised while the model runs, by the range they have."""

    name: ClassVar[str] = "int8-dynamic"

    def quantize(self, artifact: Artifact, data: QuantizationData, path: Path) -> Artifact:
        """Write the quantised model to ``path``."""
        from compressor_plugins.quantizers._int8 import quantized
        from compressor_plugins.quantizers._onnxruntime import Recipe

        return quantized(artifact, data, path, Recipe(**self.options(), static=False))


class Int8Static(_Int8):
    """Quantise weights to signed, activations to unsigned 8 bits, by the ranges that the calibration rows span (QDQ)."""

    name: ClassVar[str] = "int8-static"

    def quantize(self, artifact: Artifact, data: QuantizationData, path: Path) -> Artifact:
        """Write the quantised model to ``path``."""
        from compressor_plugins.quantizers._int8 import quantized
        from compressor_plugins.quantizers._onnxruntime import Recipe

        return quantized(artifact, data, path, Recipe(**self.options(), static=True))


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the quantizers."""
    yield Int8Dynamic
    yield Int8Static
