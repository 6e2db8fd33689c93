"""An exported file and what is known of it. Importing this module does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import InputError

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Artifact:
    """An exported model file.

    Attributes:
        path: the file.
        format: ``"onnx"``.
        opset: version of the standard operator set.
        input_names: in the order of the graph, e.g. ``("input_ids", "attention_mask", "token_type_ids")``.
        output_names: e.g. ``("logits",)``.
        size_bytes: of the file (and of its external data, when there is any).
        max_abs_diff: largest absolute difference to torch over the parity shapes, in units of the output.
    """

    path: Path
    format: str
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    size_bytes: int
    max_abs_diff: float


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
