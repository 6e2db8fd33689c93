"""From a float32 ONNX file to an int8 one, by onnxruntime's quantizer."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from compressor.errors import CompressorError
from compressor.model.artifact import Artifact
from compressor.model.runtime import open_session
from compressor.plugin import QuantizationData
from compressor_plugins.quantizers._layers import Layer, layers_of
from compressor_plugins.quantizers._search import Search, keep_within

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


@dataclass(frozen=True)
class Recipe:
    """How to quantise: the options of the declaration.

    Attributes:
        calibrate: how ranges of activations are made of what the calibration rows show; None = while the model runs.
    """

    embeddings: bool
    per_channel: bool
    reduce_range: bool
    max_drop: float | None
    samples: int
    calibrate: str | None


def quantized(artifact: Artifact, data: QuantizationData, path: Path, recipe: Recipe) -> Artifact:
    """Quantise a file, in part where all of it would cost more than ``max_drop``, and put it at ``path`` by one rename.

    Raises:
        CompressorError: onnxruntime cannot quantise the file, or the result gives other than finite numbers.
    """
    layers = layers_of(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        work = _Work(artifact.path, layers, data, recipe, Path(place))
        search = Search(layers, work.write, work.error, data.drop)
        found = search.all() if recipe.max_drop is None else keep_within(search, recipe.max_drop)
        details = {
            "layers": len(layers),
            "quantized": len(layers) - len(found.excluded),
            "kept_float32": list(found.excluded),
            **({"max_drop": recipe.max_drop, "drops": list(found.drops)} if found.drops else {}),
        }
        difference = work.difference(found.path)
        found.path.replace(path)
    return replace(
        artifact,
        path=path,
        format="onnx-int8",
        size_bytes=path.stat().st_size,
        max_abs_diff=difference,
        details=details,
    )


@dataclass(frozen=True)
class _Work:
    """Quantised files of one float32 file, in a directory that goes away."""

    source: Path
    layers: Sequence[Layer]
    data: QuantizationData
    recipe: Recipe
    place: Path

    def write(self, excluded: Collection[str]) -> Path:
        """Write the file in which all layers but some are quantised."""
        path = self.place / "quantized.onnx"
        recipe = self.recipe
        kinds = ["MatMul", "Gemm", *(["Gather"] if recipe.embeddings else [])]
        common: dict[str, Any] = {
            "op_types_to_quantize": kinds,
            "per_channel": recipe.per_channel,
            "reduce_range": recipe.reduce_range,
            "weight_type": QuantType.QInt8,  # of two unsigned operands the CPU's kernel is half as fast
            "extra_options": {"DefaultTensorType": TensorProto.FLOAT},
        }
        try:
            with _silence():
                if recipe.calibrate is None:
                    quantize_dynamic(str(self.source), str(path), nodes_to_exclude=_names(excluded), **common)
                else:
                    quantize_static(
                        str(self.source),
                        str(path),
                        _Reader(self.data.batches()),
                        quant_format=QuantFormat.QDQ,
                        activation_type=QuantType.QUInt8,
                        calibrate_method=METHODS[recipe.calibrate],
                        nodes_to_exclude=[*excluded, *_without_weights(self.source, self.layers)],
                        **common,
                    )
        except (RuntimeError, ValueError) as error:
            raise CompressorError(f"onnxruntime cannot quantise {self.source.name}: {error}") from error
        _strip(path)
        return path

    def difference(self, path: Path) -> float:
        """Return the largest absolute difference to the float32 file on the first calibration batch."""
        return float(max(np.abs(one - other).max() for one, other in self._pairs(path)))

    def error(self, path: Path) -> float:
        """Return the mean squared difference to the float32 file on the first calibration batch."""
        return float(np.mean([np.square(one - other).mean() for one, other in self._pairs(path)]))

    def _pairs(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        batch = next(iter(self.data.batches()))
        found, expected = (open_session(file).run(None, dict(batch)) for file in (path, self.source))
        if not all(np.isfinite(output).all() for output in found):
            raise CompressorError(f"{self.source.name}, quantised, gives outputs that are not finite")
        return zip(found, expected, strict=True)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    """Calibration batches as onnxruntime asks for them."""

    def __init__(self, batches: Iterator[Mapping[str, np.ndarray]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else dict(batch)


def _names(excluded: Collection[str]) -> list[str]:
    """Return the names by which the dynamic quantizer knows layers: it renames every Gemm before it looks who is excluded."""
    return [name for layer in excluded for name in (layer, f"{layer}_MatMul")]


def _without_weights(path: Path, layers: Sequence[Layer]) -> list[str]:
    """Return the products of two activations (attention): QDQ around them costs more than it gives."""
    known = {layer.name for layer in layers}
    graph = onnx.load(str(path), load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type in {"MatMul", "Gemm"} and node.name not in known]


def _strip(path: Path) -> None:
    """Drop what names the machine or the moment."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = ""
    onnx.save_model(model, str(path))


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the quantizer's advice, on the root logger, from the user: what it advises is done already.

    ``logging.warning`` would also give a root logger without handlers one that prints, for good.
    """
    disabled, mute = logging.root.manager.disable, logging.NullHandler()
    logging.root.addHandler(mute)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(mute)
