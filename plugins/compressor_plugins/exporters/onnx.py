"""The portable ONNX file, standard operators only, and one for onnxruntime alone; dynamic batch and sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from compressor.plugin import Component, Exporter, hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from compressor.model.artifact import Artifact
    from compressor.plugin import Task
    from compressor_plugins.exporters._signature import Signature


class OnnxExporter(Exporter):
    """Export with torch's dynamo exporter and compare with torch on ragged shapes."""

    name: ClassVar[str] = "onnx"

    opset: int = Field(default=20, ge=18, le=23, description="Version of the standard operators; 20 has Gelu.")
    max_abs_diff: float = Field(default=1e-4, gt=0, description="Largest difference to torch that is accepted.")
    fused: bool = Field(
        default=True,
        description="Write model_ort.onnx too: attention fused per layer, for onnxruntime alone.",
    )

    pooling: bool = Field(
        default=False,
        description="Pool and normalise inside the graph too, as modules.json of a sentence-transformers directory says: "
        "sentence_embedding becomes its second output.",
    )

    def check(self, model: nn.Module, task: Task) -> None:
        """Refuse pooling that the model's directory does not describe, or that is not the task's."""
        if self.pooling:
            from compressor_plugins.exporters._sentences import check_pooling

            check_pooling(model, task)

    def export(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact:
        """Write ``model`` to ``path``, which appears only when it reproduces torch."""
        from compressor_plugins.exporters._torch_onnx import export

        net = self._signature(model, input_names, output_names)
        return export(net, path, opset=self.opset, tolerance=self.max_abs_diff)

    def export_fused(
        self, model: nn.Module, path: Path, *, input_names: Sequence[str], output_names: Sequence[str]
    ) -> Artifact | str | None:
        """Write ``model`` with one attention operator per layer to ``path``; the reason for models whose attention does more."""
        from compressor_plugins.exporters._fused import family_of
        from compressor_plugins.exporters._torch_onnx import export_fused

        if not self.fused:
            return None
        encoder: Any = model
        if family_of(model) is None:
            return f"{encoder.config.model_type} attends in a way that onnxruntime's attention operator does not know"
        net = self._signature(model, input_names, output_names)
        return export_fused(net, path, opset=self.opset, tolerance=self.max_abs_diff)

    def _signature(self, model: nn.Module, input_names: Sequence[str], output_names: Sequence[str]) -> Signature:
        from compressor.model.sentences import pooling_of
        from compressor_plugins.exporters._signature import Signature

        encoder: Any = model
        return Signature(model, input_names, output_names, pooling_of(encoder.config) if self.pooling else None)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the exporter."""
    yield OnnxExporter
