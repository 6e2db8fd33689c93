"""The portable ONNX file, standard operators only, and one for onnxruntime alone; dynamic batch and sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from compressor.plugin import Component, Exporter, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from compressor.model.artifact import Artifact


class OnnxExporter(Exporter):
    """Export with torch's dynamo exporter and compare with torch on ragged shapes."""

    name: ClassVar[str] = "onnx"

    opset: int = Field(default=20, ge=18, le=23, description="Version of the standard operators; 20 has Gelu.")
    max_abs_diff: float = Field(default=1e-4, gt=0, description="Largest difference to torch that is accepted.")
    fused: bool = Field(
        default=True,
        description="Write model_ort.onnx too: attention fused per layer, for onnxruntime alone.",
    )

    def export(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact:
        """Write ``model`` to ``path``, which appears only when it reproduces torch."""
        from compressor_plugins.exporters._signature import Signature
        from compressor_plugins.exporters._torch_onnx import export

        return export(Signature(model, input_names, output_names), path, opset=self.opset, tolerance=self.max_abs_diff)

    def export_fused(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact | None:
        """Write ``model`` with one attention operator per layer to ``path``; None for models whose attention does more."""
        from compressor_plugins.exporters._fused import family_of
        from compressor_plugins.exporters._signature import Signature
        from compressor_plugins.exporters._torch_onnx import export_fused

        if not self.fused or family_of(model) is None:
            return None
        net = Signature(model, input_names, output_names)
        return export_fused(net, path, opset=self.opset, tolerance=self.max_abs_diff)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the exporter."""
    yield OnnxExporter
