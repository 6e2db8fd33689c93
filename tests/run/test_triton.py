"""A model repository of Triton: what the configuration says is what the graph has."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

from compressor.cli import main
from compressor.errors import InputError
from compressor.model.runtime import SLOW_FUSION
from compressor.run.pipeline import Finished
from compressor.run.triton import Serving, write_repository

TENSOR = re.compile(r'\{ name: "(\w+)" data_type: (\w+) dims: \[ ([-\d, ]+) \] \}')
PARAMETER = re.compile(r'^parameters \{ key: "([^"]+)" value: \{ string_value: "([^"]*)" \} \}$', re.MULTILINE)
Tensors = dict[str, tuple[str, list[int]]]


def export(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", "--target", "triton", *map(str, arguments)])


def tensors(config: str, kind: str) -> Tensors:
    """Return type and dimensions of the inputs or the outputs, by name."""
    (block,) = re.findall(rf"^{kind} \[\n(.*?)^\]$", config, flags=re.MULTILINE | re.DOTALL)
    return {name: (kind, [int(dim) for dim in dims.split(",")]) for name, kind, dims in TENSOR.findall(block)}


def of_graph(values: Any) -> Tensors:
    names = {TensorProto.INT64: "TYPE_INT64", TensorProto.FLOAT: "TYPE_FP32"}
    shapes = {value.name: [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim] for value in values}
    return {value.name: (names[value.type.tensor_type.elem_type], shapes[value.name][1:]) for value in values}


def write_graph(
    path: Path, outputs: dict[str, list[str | int]], *, batch: str | int = "batch", kind: int = TensorProto.FLOAT
) -> Path:
    """Write a graph with the usual inputs; what it computes does not matter here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("input_ids", "attention_mask")
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [batch, "sequence"]) for name in names]
    found = [helper.make_tensor_value_info(name, kind, dims) for name, dims in outputs.items()]
    nodes = [helper.make_node("Cast", ["input_ids"], [name], to=kind) for name in outputs]
    onnx.save(helper.make_model(helper.make_graph(nodes, "toy", inputs, found)), str(path))
    return path


def test_a_finished_run_becomes_a_repository(finished: Finished, tmp_path: Path):
    result = export(
        finished.directory, "-o", tmp_path / "models", "--name", "toy", "--max-batch-size", 8, "--threads", 2
    )
    assert result.exit_code == 0, result.output
    place = tmp_path / "models" / "toy"
    assert result.stdout.strip() == str(place)
    served = json.loads((finished.directory / "ort_config.json").read_text())
    assert (place / "1" / "model.onnx").read_bytes() == (finished.directory / served["file"]).read_bytes()
    assert (place / "tokenizer" / "tokenizer.json").is_file()
    assert sorted(path.name for path in place.iterdir()) == ["1", "config.pbtxt", "tokenizer"]
    config, graph = (place / "config.pbtxt").read_text(), onnx.load(str(place / "1" / "model.onnx")).graph
    assert tensors(config, "input") == of_graph(graph.input)
    assert tensors(config, "output") == of_graph(graph.output) == {"logits": ("TYPE_FP32", [2])}
    for line in ('name: "toy"', 'backend: "onnxruntime"', "max_batch_size: 8", "dynamic_batching { }"):
        assert line in config.splitlines()
    assert "instance_group [ { count: 1 kind: KIND_CPU } ]" in config
    parameters = {"intra_op_thread_count": "2", "inter_op_thread_count": "1", "execution_mode": "0"}
    assert dict(PARAMETER.findall(config)) == parameters
    assert str(tmp_path) not in config
    assert (f"={SLOW_FUSION}" in result.stderr) == (f"={SLOW_FUSION}." in config) == bool(served["session_config"])


@pytest.mark.parametrize(
    ("outputs", "dims"),
    [
        ({"start_logits": ["batch", "sequence"], "end_logits": ["batch", "sequence"]}, [-1]),
        ({"last_hidden_state": ["batch", "sequence", 384]}, [-1, 384]),
        ({"logits": ["batch", 1]}, [1]),
    ],
)
def test_every_head_has_its_outputs(tmp_path: Path, outputs: dict[str, list[str | int]], dims: list[int]):
    file = write_graph(tmp_path / "run" / "model.onnx", outputs)
    assert export(tmp_path / "run").exit_code == 0
    config = (tmp_path / "run-triton" / "run" / "config.pbtxt").read_text()
    assert tensors(config, "output") == of_graph(onnx.load(str(file)).graph.output)
    assert tensors(config, "output") == dict.fromkeys(outputs, ("TYPE_FP32", dims))
    assert tensors(config, "input") == dict.fromkeys(("input_ids", "attention_mask"), ("TYPE_INT64", [-1]))


@pytest.mark.parametrize(("provider", "accelerators"), [("cuda", 0), ("tensorrt", 1)])
def test_a_run_measured_on_a_gpu_is_served_there(tmp_path: Path, provider: str, accelerators: int):
    write_graph(tmp_path / "run" / "fast.onnx", {"logits": ["batch", 2]})
    known = {"session.use_device_allocator_for_initializers": "1"}
    served = {"file": "fast.onnx", "provider": provider, "session_config": known}
    (tmp_path / "run" / "ort_config.json").write_text(json.dumps(served))
    result = export(tmp_path / "run", "--instances", 2)
    assert (result.exit_code, result.stderr) == (0, "")
    config = (tmp_path / "run-triton" / "run" / "config.pbtxt").read_text()
    assert "instance_group [ { count: 2 kind: KIND_GPU } ]" in config
    assert config.count('name: "tensorrt"') == accelerators
    assert dict(PARAMETER.findall(config)).items() >= known.items()


def test_a_recommendation_that_triton_cannot_follow_is_said(tmp_path: Path):
    file = write_graph(tmp_path / "run" / "model.onnx", {"logits": ["batch", 2]})
    model = onnx.load(str(file))
    model.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["logits"], ["a", "b", "c"]))
    onnx.save(model, str(file))
    why = ["model.onnx was fastest", "with the fusion on, a call takes 1.50 times as long at 1 x 128"]
    served = {"file": "model.onnx", "provider": "cpu", "session_config": {"x.y": "z\nname: no"}, "why": why}
    (tmp_path / "run" / "ort_config.json").write_text(json.dumps(served))
    result = export(tmp_path / "run")
    config = (tmp_path / "run-triton" / "run" / "config.pbtxt").read_text()
    for words in ("takes 1.50 times as long", "an answer varies a little with what is batched with it"):
        assert words in result.stderr
        assert words in config
    assert "was fastest" not in config
    assert re.findall("^name: .*$", config, flags=re.MULTILINE) == ['name: "run"']


def test_what_was_measured_in_openvino_is_not_served_in_onnxruntime(tmp_path: Path):
    (tmp_path / "ort_config.json").write_text('{"file": "model.onnx", "provider": "openvino", "session_config": {}}')
    with pytest.raises(InputError, match="measured in OpenVINO"):
        write_repository(tmp_path, tmp_path / "triton", Serving("a"))
    assert not (tmp_path / "triton").exists()


def test_nothing_is_overwritten_and_other_models_stay(tmp_path: Path):
    write_graph(tmp_path / "run" / "model.onnx", {"logits": ["batch", 2]})
    for name in ("one", "two"):
        assert export(tmp_path / "run", "-o", tmp_path / "models", "--name", name).exit_code == 0
    (tmp_path / "models" / "one" / "config.pbtxt").write_text("mine")
    result = export(tmp_path / "run", "-o", tmp_path / "models", "--name", "one")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "models/one: exists already; nothing is overwritten" in result.stderr
    assert (tmp_path / "models" / "one" / "config.pbtxt").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "graph", "message"),
    [
        ((), {"batch": 1}, "input_ids: expected a free batch dimension and one more behind it, got [1, -1]"),
        ((), {"kind": TensorProto.BOOL}, "logits: expected one of INT64, INT32, FLOAT, FLOAT16, DOUBLE, got BOOL"),
        (("--name", "../up"), {}, "expected a name of letters, digits, '.', '_' and '-', got '../up'"),
        ((), None, "model.onnx: no such ONNX file"),
    ],
)
def test_what_triton_cannot_serve_is_one_error(
    tmp_path: Path, options: tuple[str, ...], graph: dict[str, Any] | None, message: str
):
    (tmp_path / "run").mkdir()
    if graph is not None:
        write_graph(tmp_path / "run" / "model.onnx", {"logits": ["batch", 2]}, **graph)
    result = export(tmp_path / "run", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not (tmp_path / "run-triton").exists()


def test_a_directory_that_is_none_is_named(tmp_path: Path):
    result = export(tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere: no such directory" in result.stderr
