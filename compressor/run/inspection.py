"""What a checkpoint, a run directory or an ONNX file holds, as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.errors import InputError
from compressor.model import checkpoint, shapes
from compressor.model.artifact import initializer_elements, read_onnx
from compressor.model.costs import encoder_macs, parameters
from compressor.plugin.components import ModelFamily
from compressor.plugin.registry import Registry
from compressor.run.load import failures_named, families


def inspect_path(path: Path, *, sequence: float) -> dict[str, Any]:
    """Describe a file or a directory.

    Args:
        path: an ``.onnx`` file, a checkpoint directory, or a run's output directory.
        sequence: tokens per sample at which MACs are counted.

    Raises:
        InputError: the path is neither.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.is_file() and path.suffix != ".onnx":
        raise InputError(f"{path}: expected an .onnx file, a checkpoint directory or the directory of a run")
    if path.suffix == ".onnx":
        return {"path": str(path), "onnx": inspect_onnx(path)}
    registry = Registry.load()
    with failures_named(registry):
        found = {"path": str(path), **inspect_checkpoint(path, families(registry), sequence=sequence)}
    files = sorted(path.glob("*.onnx"))
    return {**found, "files": {file.name: inspect_onnx(file) for file in files}} if files else found


def inspect_checkpoint(path: Path, by_type: Mapping[str, ModelFamily], *, sequence: float) -> dict[str, Any]:
    """Describe a checkpoint: what is in each layer, parameters, MACs."""
    model: Any = checkpoint.load(path, by_type)
    family = by_type[model.config.model_type]
    groups = family.groups(model)
    layers: dict[int, dict[str, int]] = {}
    for group in groups:
        layers.setdefault(group.index, {})[group.kind] = group.units
    return {
        "model_type": model.config.model_type,
        "architecture": type(model).__name__,
        "family": family.name,
        "parameters": parameters(model),
        "encoder_macs": {"macs": encoder_macs(model, groups, sequence), "sequence": sequence},
        "layers": [{"layer": index, **units} for index, units in sorted(layers.items())],
        "kept_layers": getattr(model.config, shapes.LAYERS, None),
    }


def inspect_onnx(path: Path) -> dict[str, Any]:
    """Describe an ONNX file: inputs, outputs, operators, and how many numbers its initialisers hold."""
    model = read_onnx(path)
    graph = model.graph
    return {
        "size_bytes": path.stat().st_size,
        "opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "inputs": [value.name for value in graph.input],
        "outputs": [value.name for value in graph.output],
        "initializer_elements": initializer_elements(model),
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
    }
