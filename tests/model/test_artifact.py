from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from compressor.model.artifact import file_sparsity

WEIGHT = np.tile(np.array([[1.0], [0.0], [0.0], [2.0]], dtype=np.float32), (4, 3))
"""Shape (in, out) = (16, 3), 2:4."""


def test_zeros_of_a_file_with_external_data_are_counted(tmp_path: Path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 16), ("y", 3))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "one", ends[:1], ends[1:], [numpy_helper.from_array(WEIGHT, "w")])
    onnx.save(
        helper.make_model(graph), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    assert (tmp_path / "m.data").stat().st_size >= WEIGHT.nbytes
    found = file_sparsity(tmp_path / "m.onnx")
    assert found == {"weights": 1, "elements": 48, "zeros": 24, "ratio": 0.5, "two_of_four": 1}
