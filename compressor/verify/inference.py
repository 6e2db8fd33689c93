"""One call of an ONNX file: what its graph takes, and what went wrong in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from compressor.errors import InputError

Types = Mapping[str, np.dtype[Any]]
TYPES: Types = {"tensor(int64)": np.dtype("int64"), "tensor(int32)": np.dtype("int32")}


def input_types(session: Any) -> dict[str, np.dtype[Any]]:
    """Return the integer type of every input of an onnxruntime session, by name.

    Raises:
        InputError: an input takes something other than whole numbers, so this is no text encoder.
    """
    other = [f"{entry.name} {entry.type}" for entry in session.get_inputs() if entry.type not in TYPES]
    if other:
        raise InputError(f"the ONNX file takes {', '.join(other)}; expected token ids and masks (int64 or int32)")
    return {entry.name: TYPES[entry.type] for entry in session.get_inputs()}


def feeds(types: Types, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the inputs that the graph has, of shape (B, T), in its integer types.

    Raises:
        InputError: the graph needs an input that the batch does not have.
    """
    absent = [name for name in types if name not in batch]
    if absent:
        raise InputError(f"the ONNX file needs the inputs {', '.join(absent)}; the rows have {', '.join(batch)}")
    return {name: np.asarray(batch[name]).astype(kind, copy=False) for name, kind in types.items()}


def unpadded(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Return a batch of these token ids, shape (B, T): all of them real, of one segment."""
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def call(session: Any, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what an onnxruntime session gives: its output, or several of one shape, stacked on a last axis.

    The start and the end logits (B, T) of question answering thus come as (B, T, 2), as ``raw_output`` has them. Of
    outputs of different shapes only the first is returned.

    Raises:
        InputError: onnxruntime refuses these inputs, e.g. because they are longer than the model's positions.
    """
    try:
        outputs: list[np.ndarray] = session.run(None, inputs)
    except Exception as error:  # onnxruntime raises a family of types without a common root of its own
        shape = "x".join(str(size) for size in next(iter(inputs.values())).shape)
        raise InputError(
            f"onnxruntime cannot run the file on inputs of shape {shape}: {error}",
            hint="check that the length is within the model's positions and the ids within its vocabulary",
        ) from error
    one = len(outputs) == 1 or len({output.shape for output in outputs}) > 1
    return outputs[0] if one else np.stack(outputs, axis=-1)
