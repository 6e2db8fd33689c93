"""An exported file and what is known of it. Importing this module does not import torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import onnx

WEIGHTED = {"MatMul", "Gemm", "Attention"}
"""Operators whose second input is a weight; onnxruntime's Attention has query, key and value in one."""


@dataclass(frozen=True)
class Artifact:
    """An exported model file.

    Attributes:
        path: the file.
        format: ``"onnx"``, ``"onnx-ort"`` with operators of onnxruntime, or ``"onnx-int8"``.
        opset: version of the standard operator set.
        input_names: in the order of the graph, e.g. ``("input_ids", "attention_mask", "token_type_ids")``.
        output_names: e.g. ``("logits",)``.
        size_bytes: of the file (and of its external data, when there is any).
        max_abs_diff: largest absolute difference to what it was made of, in units of the output: to torch over the parity
            shapes, or of a quantised file to the float32 one on calibration rows.
        details: what else is known of how it was made; plain data.
    """

    path: Path
    format: str
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    size_bytes: int
    max_abs_diff: float
    details: Mapping[str, Any] = field(default_factory=dict)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, without external data.

    Raises:
        InputError: the file is missing or is not an ONNX model.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise InputError(f"{path}: expected an ONNX model: {error}") from error


def initializer_elements(model: Path | onnx.ModelProto) -> int:
    """Count the numbers stored in an ONNX file; what was removed from the model is not among them.

    Raises:
        InputError: the file is missing or is not an ONNX model.
    """
    proto = read_onnx(model) if isinstance(model, Path) else model
    return sum(math.prod(tensor.dims) for tensor in proto.graph.initializer)


@dataclass(frozen=True)
class StoredWeight:
    """A weight that a MatMul, a Gemm or a fused Attention of an ONNX file reads from its initialisers.

    Attributes:
        name: of the initialiser.
        values: shape (out, in), as a Linear has it.
    """

    name: str
    values: np.ndarray

    @property
    def zeros(self) -> int:
        """How many numbers are zero."""
        return int((self.values == 0).sum())

    @property
    def two_of_four(self) -> bool:
        """Whether exactly two of every four consecutive inputs are zero, in every output."""
        outputs, inputs = self.values.shape
        if inputs % 4:
            return False
        return bool(((self.values == 0).reshape(outputs, -1, 4).sum(axis=2) == 2).all())  # noqa: PLR2004 - its name


def stored_weights(path: Path) -> Iterator[StoredWeight]:
    """Yield the two-dimensional weights of an ONNX file, external data included, in the order in which the graph reads them.

    Raises:
        InputError: the file is missing or is not an ONNX model.
    """
    from onnx import numpy_helper

    graph = read_onnx(path).graph
    initializers = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 2}  # noqa: PLR2004 - matrices
    for node in graph.node:
        tensor = initializers.get(node.input[1]) if node.op_type in WEIGHTED else None
        if tensor is not None:
            values = numpy_helper.to_array(tensor, base_dir=str(path.parent))
            transposed = any(entry.name == "transB" and entry.i for entry in node.attribute)
            yield StoredWeight(tensor.name, values if transposed else values.T)


def file_sparsity(path: Path) -> dict[str, float]:
    """Count the zeros in the weights of an ONNX file: what masks promised, as the file has it.

    Returns:
        ``weights`` (how many), ``elements``, ``zeros``, ``ratio``, and ``two_of_four``: in how many weights exactly two of
        every four inputs are zero.

    Raises:
        InputError: the file is missing or is not an ONNX model.
    """
    count = elements = zeros = regular = 0
    for weight in stored_weights(path):
        count, elements, zeros = count + 1, elements + weight.values.size, zeros + weight.zeros
        regular += weight.two_of_four
    ratio = zeros / elements if elements else 0.0
    return {"weights": count, "elements": elements, "zeros": zeros, "ratio": ratio, "two_of_four": regular}
