"""The layers of an ONNX file that can be quantised: products with a stored weight."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import InputError
from compressor.model.artifact import read_onnx


@dataclass(frozen=True)
class Layer:
    """A MatMul or Gemm with a stored weight.

    Attributes:
        name: of the node.
        weight: name of the initialiser.
        macs: multiplications for each token, the elements of the weight.
    """

    name: str
    weight: str
    macs: int


@dataclass(frozen=True)
class Products:
    """The matrix products of a file, in the order of its graph.

    Attributes:
        layers: those with a stored weight.
        others: names of those of two activations, as in attention.
    """

    layers: tuple[Layer, ...]
    others: tuple[str, ...]


def products_of(path: Path) -> Products:
    """Read the products of a file.

    Raises:
        InputError: the file is no ONNX model, or has operators that make it a fused one.
    """
    graph = read_onnx(path).graph
    foreign = sorted({node.domain for node in graph.node if node.domain not in {"", "ai.onnx"}})
    if foreign:
        raise InputError(
            f"{path}: has operators of {', '.join(foreign)}; expected the portable file",
            hint="quantise model.onnx, not model_ort.onnx: int8 around fused attention was measured slower",
        )
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type in {"MatMul", "Gemm"}]
    return Products(
        tuple(Layer(node.name, node.input[1], sizes[node.input[1]]) for node in nodes if node.input[1] in sizes),
        tuple(node.name for node in nodes if node.input[1] not in sizes),
    )
