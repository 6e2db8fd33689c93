"""Int8 files: weights in 8 bits, activations in 8 bits as they come or by calibration.

Both are made from the portable file. The fused one is never quantised: its int8 form was measured slower than the portable one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import Field, model_validator

from compressor.plugin import Component, Quantizer, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from compressor.model.artifact import Artifact
    from compressor.plugin import QuantizationData


class _Int8(Quantizer):
    """What both have in common."""

    embeddings: bool = Field(
        default=False, description="Quantise embedding tables too: a smaller file, neither faster nor slower."
    )
    per_channel: bool = Field(
        default=True,
        description="A scale for every output of a weight, not one for all: as fast, and rows with outliers spoil no others.",
    )
    reduce_range: bool = Field(
        default=False, description="7 bits for weights: for CPUs without VNNI, where sums of 8-bit products saturate."
    )
    max_drop: float | None = Field(
        default=None,
        ge=0,
        description="Most that quantising may cost of the metric, absolute; layers stay float32 until it is met. "
        "Default: all are quantised.",
    )
    samples: int = Field(default=512, ge=1, description="Validation examples that max_drop is measured on.")

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
