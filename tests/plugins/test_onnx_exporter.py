from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import CompressorError, InputError
from compressor.model import max_positions
from compressor.model.artifact import Artifact, initializer_elements
from compressor.model.masks import Masks
from compressor.model.outputs import OUTPUT_NAMES
from compressor.model.surgery import shrink
from compressor.plugin import ModelFamily
from compressor.plugin.components import Head
from compressor.testing import assert_onnx_equals_torch, example_masks, tiny_batch, tiny_model
from compressor_plugins.exporters import _torch_onnx
from compressor_plugins.exporters import onnx as declaration
from compressor_plugins.exporters._signature import example_batch
from compressor_plugins.exporters.onnx import OnnxExporter
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.families.modernbert import ModernBert
from compressor_plugins.families.mpnet import MPNet

pytestmark = pytest.mark.usefixtures("own_graphs")
SEGMENTS = ("input_ids", "attention_mask", "token_type_ids")
PLAIN = SEGMENTS[:2]
FAMILIES: tuple[ModelFamily, ...] = (Bert(), DistilBert(), DebertaV2(), ModernBert(), MPNet())
FLOAT = onnx.TensorProto.FLOAT
CLASSIFIER: Head = "sequence-classification"
ANSWERS: Head = "question-answering"
ENCODER: Head = "feature-extraction"
RAGGED_SHAPES = ((1,), (2,), (5, 9), (1, 17, 3), (64, 2), (131, 40, 7, 1))


def pruned(model_type: str, kind: str, **options: Any) -> nn.Module:
    family = next((family for family in FAMILIES if model_type in family.model_types), Bert())
    model = tiny_model(model_type, **options)
    return shrink(model, family, example_masks(family.groups(model))[kind])


def export(
    model: nn.Module, path: Path, input_names: tuple[str, ...] = PLAIN, output_names: tuple[str, ...] = ("logits",)
) -> Artifact:
    return OnnxExporter().export(model, path, input_names=input_names, output_names=output_names)


def assert_equal_on_ragged_shapes(path: Path, model: nn.Module) -> None:
    for lengths in RAGGED_SHAPES:
        batch = tiny_batch(lengths=lengths, labels=False, seed=len(lengths))
        batch["token_type_ids"] = (batch["input_ids"] % 2) * batch["attention_mask"]
        assert_onnx_equals_torch(path, model, batch, tolerance=1e-5)


@pytest.mark.parametrize(
    ("model_type", "kind", "input_names", "head"),
    [
        ("bert", "nothing", SEGMENTS, CLASSIFIER),
        ("roberta", "ragged", PLAIN, ENCODER),
        ("xlm-roberta", "ragged", PLAIN, CLASSIFIER),
        ("electra", "ragged", SEGMENTS, CLASSIFIER),
        ("distilbert", "ragged", PLAIN, CLASSIFIER),
        ("deberta-v2", "ragged", PLAIN, CLASSIFIER),
        ("modernbert", "ragged", PLAIN, ENCODER),
        ("mpnet", "ragged", PLAIN, ENCODER),
        ("bert", "ragged", SEGMENTS, ANSWERS),
        ("roberta", "nothing", PLAIN, ANSWERS),
        ("electra", "ragged", SEGMENTS, ANSWERS),
        ("distilbert", "ragged", PLAIN, ANSWERS),
    ],
)
def test_onnx_equals_torch_with_unequal_and_emptied_sublayers(
    tmp_path: Path, model_type: str, kind: str, input_names: tuple[str, ...], head: Head
) -> None:
    model = pruned(model_type, kind, head=head, num_labels=None if head == ENCODER else 2)
    artifact = export(model, tmp_path / "model.onnx", input_names, OUTPUT_NAMES[head])
    assert tuple(put.name for put in onnx.load(artifact.path).graph.output) == OUTPUT_NAMES[head]
    assert artifact.max_abs_diff <= 1e-5
    assert artifact.input_names == input_names
    assert_equal_on_ragged_shapes(artifact.path, model)


@pytest.mark.parametrize(
    ("model_type", "dropped"), [("bert", (0, 2)), ("bert", (1,)), ("distilbert", (0,)), ("distilbert", (2,))]
)
def test_onnx_equals_torch_without_layers(tmp_path: Path, model_type: str, dropped: tuple[int, ...]) -> None:
    family: ModelFamily = DistilBert() if model_type == "distilbert" else Bert()
    model = tiny_model(model_type)
    smaller = shrink(model, family, example_masks(family.groups(model))["ragged"], dropped_layers=dropped)
    artifact = export(smaller, tmp_path / "model.onnx")
    assert artifact.max_abs_diff <= 1e-5
    assert_equal_on_ragged_shapes(artifact.path, smaller)
    assert not any(f"layer.{3 - len(dropped)}." in tensor.name for tensor in onnx.load(artifact.path).graph.initializer)


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    return pruned("bert", "ragged")


@pytest.fixture(scope="module")
def exported(bert: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return export(bert, tmp_path_factory.mktemp("a") / "model.onnx", SEGMENTS)


def test_the_artifact_describes_the_file(exported: Artifact, bert: nn.Module) -> None:
    graph = onnx.load(exported.path).graph
    assert tuple(put.name for put in graph.input) == exported.input_names == SEGMENTS
    assert tuple(put.name for put in graph.output) == exported.output_names == ("logits",)
    assert exported.size_bytes == exported.path.stat().st_size
    assert (exported.format, exported.opset) == ("onnx", 20)
    assert_equal_on_ragged_shapes(exported.path, bert)


def test_batch_and_sequence_are_dynamic(exported: Artifact) -> None:
    graph = onnx.load(exported.path).graph
    for put in graph.input:
        assert [dim.dim_param for dim in put.type.tensor_type.shape.dim] == ["batch", "sequence"]
        assert put.type.tensor_type.elem_type == onnx.TensorProto.INT64


def test_only_standard_operators_are_used(exported: Artifact) -> None:
    model = onnx.load(exported.path)
    assert [entry.domain for entry in model.opset_import] == [""]
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    assert not model.functions


def test_removed_units_are_not_in_the_file(exported: Artifact, bert: nn.Module) -> None:
    in_torch = sum(parameter.numel() for parameter in bert.parameters())
    dense = sum(parameter.numel() for parameter in tiny_model().parameters())
    assert abs(initializer_elements(exported.path) - in_torch) < 100
    assert in_torch < dense - 5000


def test_a_training_model_on_another_path_gives_the_same_bytes_and_stays_in_training(
    exported: Artifact, bert: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model: Any = shrink(bert, Bert(), Masks({})).train()
    again = export(model, tmp_path / "a" / "longer" / "path" / "m.onnx", SEGMENTS)
    assert again.path.read_bytes() == exported.path.read_bytes()
    assert [path.name for path in again.path.parent.iterdir()] == ["m.onnx"]
    assert all(module.training for module in model.modules())
    assert capfd.readouterr().out == ""


def test_the_file_tells_nothing_about_the_machine(exported: Artifact, tmp_path: Path) -> None:
    content = exported.path.read_bytes()
    for trace in (b".py", b"site-packages", b"transformers", str(Path.cwd()).encode(), str(tmp_path.parent).encode()):
        assert trace not in content


def test_a_file_that_differs_from_torch_is_refused_and_removed(
    bert: nn.Module, tmp_path: Path, exported: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(exported.path)
    bias = next(tensor for tensor in wrong.graph.initializer if list(tensor.dims) == [2] and tensor.data_type == FLOAT)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.01, bias.name))
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    with pytest.raises(
        CompressorError, match=r"differs from torch by 0\.01 at batch \d+, sequence \d+; accepted: 0.0001"
    ):
        export(bert, tmp_path / "model.onnx", SEGMENTS)
    assert list(tmp_path.iterdir()) == []


def test_a_difference_in_the_second_output_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = pruned("bert", "one head", head=ANSWERS)
    artifact = export(model, tmp_path / "good.onnx", SEGMENTS, OUTPUT_NAMES[ANSWERS])
    assert artifact.output_names == ("start_logits", "end_logits")
    wrong = onnx.load(artifact.path)
    bias = next(tensor for tensor in wrong.graph.initializer if list(tensor.dims) == [2] and tensor.data_type == FLOAT)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32([0, 0.01]), bias.name))
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    with pytest.raises(CompressorError, match=r"differs from torch by 0\.01 at"):
        export(model, tmp_path / "bad.onnx", SEGMENTS, OUTPUT_NAMES[ANSWERS])


def test_a_file_that_gives_nan_is_refused(
    bert: nn.Module, tmp_path: Path, exported: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(exported.path)
    bias = next(tensor for tensor in wrong.graph.initializer if list(tensor.dims) == [2] and tensor.data_type == FLOAT)
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) * float("nan"), bias.name))
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    with pytest.raises(CompressorError, match="differs from torch by nan"):
        export(bert, tmp_path / "model.onnx", SEGMENTS)


def test_foreign_operators_are_refused(exported: Artifact) -> None:
    model = onnx.load(exported.path)
    model.graph.node[0].domain = "com.microsoft"
    with pytest.raises(CompressorError, match=r"other than standard ONNX operators: com\.microsoft::"):
        _torch_onnx._standard_only(model)


def test_weights_beyond_one_file_are_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_torch_onnx, "LARGEST", 1000)
    with pytest.raises(InputError, match="one ONNX file holds at most"):
        export(tiny_model(), tmp_path / "model.onnx")


def test_an_unknown_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressorError, match="no input named pixel_values"):
        export(tiny_model(), tmp_path / "model.onnx", ("input_ids", "pixel_values"))


@pytest.mark.parametrize(
    ("model_type", "longest"), [("bert", 160), ("roberta", 159), ("distilbert", 160), ("electra", 160)]
)
def test_longest_sequence_is_what_the_positions_allow(model_type: str, longest: int) -> None:
    model = tiny_model(model_type)
    assert max_positions(model) == longest
    with torch.no_grad():
        model(**example_batch(model, PLAIN, 2, longest))
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 5))


def test_example_rows_end_in_padding_of_different_lengths() -> None:
    mask = example_batch(tiny_model(), PLAIN, 4, 20)["attention_mask"]
    assert mask.sum(1).tolist() == [20, 16, 12, 8]
    assert (mask.diff(dim=1) <= 0).all()


def test_initializer_elements_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an ONNX model"):
        initializer_elements(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("not a protobuf")
    with pytest.raises(InputError, match="expected an ONNX model"):
        initializer_elements(tmp_path / "text.onnx")


def test_the_plugin_provides_the_exporter() -> None:
    assert list(declaration.compressor_components()) == [OnnxExporter]
    assert OnnxExporter().options() == {"opset": 20, "max_abs_diff": 1e-4, "fused": True, "pooling": False}


@pytest.mark.parametrize("model_type", ["deberta-v2", "modernbert", "mpnet"])
def test_attention_without_an_operator_of_its_own_has_no_fused_file_and_says_why(
    tmp_path: Path, model_type: str
) -> None:
    path = tmp_path / "model_ort.onnx"
    why = OnnxExporter().export_fused(tiny_model(model_type), path, input_names=PLAIN, output_names=("logits",))
    assert isinstance(why, str)
    assert why.startswith(f"{model_type} attends in a way")
    assert not path.exists()
