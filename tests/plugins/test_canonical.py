"""An exported graph has one order and one set of names, whatever order torch traced it in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from compressor_plugins.exporters._canonical import make_canonical

EXPORT = """
import sys
from pathlib import Path
from compressor.testing import tiny_model
from compressor_plugins.exporters.onnx import OnnxExporter

names = ("input_ids", "attention_mask")
OnnxExporter().export(tiny_model("modernbert"), Path(sys.argv[1]), input_names=names, output_names=("logits",))
"""


def test_processes_with_other_string_hashes_export_the_same_bytes(tmp_path: Path):
    """ModernBERT's kinds of layers are a set of texts; these two seeds give it in two orders."""
    files = [tmp_path / f"{seed}.onnx" for seed in (0, 1)]
    for path in files:
        variables = {**os.environ, "PYTHONHASHSEED": path.stem}
        subprocess.run([sys.executable, "-c", EXPORT, str(path)], env=variables, check=True, capture_output=True)
    assert files[0].read_bytes() == files[1].read_bytes()


def traced(*, late: bool) -> onnx.ModelProto:
    """A sum of sines and cosines of two tables; the tables are met, and numbered, in one order or the other."""
    kinds = ("cos", "sin")[:: -1 if late else 1]
    number = {kind: f"_{index}" if index else "" for index, kind in enumerate(kinds)}
    made = {
        kind: [
            helper.make_node(
                "Mul", ["x", f"model.{kind}_table"], [f"mul{number[kind]}"], name=f"node_mul{number[kind]}"
            ),
            helper.make_node(kind.title(), [f"mul{number[kind]}"], [f"val{number[kind]}"], name=f"node_{kind}_9"),
        ]
        for kind in kinds
    }
    unused = helper.make_node("Neg", ["x"], ["val_7"], name="node_neg")
    last = [
        helper.make_node("Add", [f"val{number['cos']}", f"val{number['sin']}"], ["add"], name="node_add"),
        helper.make_node("Mul", ["add", f"half{number['sin']}"], ["y"], name="node_mul_2"),
    ]
    tables = [
        numpy_helper.from_array(np.array([index + 1.5], np.float32), f"model.{kind}_table")
        for index, kind in enumerate(("cos", "sin"))
    ]
    half = numpy_helper.from_array(np.array([0.5], np.float32), f"half{number['sin']}")
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    nodes = [*made[kinds[0]], unused, *made[kinds[1]], *last]
    graph = helper.make_graph(nodes, "graph", puts[:1], puts[1:], [half, *tables][:: -1 if late else 1])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outputs(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": np.array([0.1, 0.7, 2.0], np.float32)})[0]
    return found


def test_the_order_of_tracing_leaves_no_trace_and_no_other_answers():
    one, other = traced(late=False), traced(late=True)
    assert one.graph.node != other.graph.node
    expected = outputs(one)
    for model in (one, other):
        make_canonical(model.graph)
        onnx.checker.check_model(model)
        assert np.array_equal(outputs(model), expected)
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)
    assert [node.name for node in one.graph.node] == [
        *("node_mul", "node_cos", "node_mul_1", "node_sin", "node_add", "node_mul_2")
    ]
    assert [tensor.name for tensor in one.graph.initializer] == ["model.cos_table", "model.sin_table", "half"]
    before = one.SerializeToString(deterministic=True)
    make_canonical(one.graph)
    assert one.SerializeToString(deterministic=True) == before


def test_nodes_without_names_and_inputs_that_are_left_out_keep_their_order():
    """Node names and inputs are optional; what a node without a name reads still comes before it."""
    nodes = [
        helper.make_node("Neg", ["x"], ["val_9"]),
        helper.make_node("Exp", ["val_9"], ["val_2"], name="node_exp_4"),
        helper.make_node("Clip", ["val_2", "", "most_1"], ["val_1"]),
        helper.make_node("Abs", ["val_1"], ["y"], name="node_exp_7"),
    ]
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    most = numpy_helper.from_array(np.array(0.6, np.float32), "most_1")
    graph = helper.make_graph(nodes, "graph", puts[:1], puts[1:], [most])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    expected = outputs(model)
    make_canonical(model.graph)
    onnx.checker.check_model(model)
    assert np.array_equal(outputs(model), expected)
    assert [node.op_type for node in model.graph.node] == ["Neg", "Exp", "Clip", "Abs"]
    assert [node.name for node in model.graph.node] == ["", "node_exp", "", "node_exp_1"]
    assert list(model.graph.node[2].input) == ["val_1", "", "most"]


def test_what_is_read_from_inside_a_branch_keeps_its_name():
    inner = helper.make_graph(
        [helper.make_node("Identity", ["val_3"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, ["n"])],
    )
    nodes = [
        helper.make_node("Neg", ["x"], ["val_3"], name="node_neg_3"),
        helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner),
    ]
    puts = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    graph = helper.make_graph(nodes, "graph", [puts[0], flag], puts[1:])
    before = graph.SerializeToString(deterministic=True)
    make_canonical(graph)
    assert graph.SerializeToString(deterministic=True) == before
