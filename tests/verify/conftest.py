"""A tiny ONNX text classifier built by hand, so that these tests need no exporter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Build = Callable[..., Path]


@pytest.fixture
def tiny_onnx(tmp_path: Path) -> Build:
    """Return a function that writes a file: logits = sum over unmasked tokens of a row of ``table`` (V, C)."""

    def build(name: str = "model", table: np.ndarray | None = None, *, kind: int = TensorProto.INT64) -> Path:
        if table is None:
            table = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
        ids, mask = (helper.make_tensor_value_info(n, kind, ["batch", "seq"]) for n in ("input_ids", "attention_mask"))
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", table.shape[1]])
        nodes = [
            helper.make_node("Gather", ["table", "input_ids"], ["tokens"]),
            helper.make_node("Cast", ["attention_mask"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["floats", "last"], ["weights"]),
            helper.make_node("Mul", ["tokens", "weights"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "middle"], ["logits"], keepdims=0),
        ]
        constants = {"table": table, "last": np.array([2]), "middle": np.array([1])}
        initializers = [numpy_helper.from_array(value, key) for key, value in constants.items()]
        graph = helper.make_graph(nodes, "tiny", [ids, mask], [logits], initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        path = tmp_path / f"{name}.onnx"
        onnx.save(model, str(path))
        return path

    return build
