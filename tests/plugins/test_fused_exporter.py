from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.model.artifact import Artifact, file_sparsity
from compressor.model.checkpoint import fingerprint
from compressor.model.depth import skipped
from compressor.model.masks import Masks
from compressor.model.outputs import OUTPUT_NAMES, accepted_inputs, raw_output
from compressor.model.runtime import open_session
from compressor.model.surgery import masked, shrink
from compressor.plugin import Exporter, ModelFamily
from compressor.plugin.components import Head
from compressor.testing import assert_onnx_equals_torch, example_masks, tiny_batch, tiny_model
from compressor_plugins.exporters import _torch_onnx
from compressor_plugins.exporters._fused import (
    AttentionShape,
    FusedAttention,
    FusedSignature,
    PaddingMask,
    check_attention,
    family_of,
    live_attention,
)
from compressor_plugins.exporters._signature import Signature
from compressor_plugins.exporters.onnx import OnnxExporter
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

pytestmark = pytest.mark.usefixtures("own_graphs")
CLASSIFIER: Head = "sequence-classification"
ANSWERS: Head = "question-answering"
ENCODER: Head = "feature-extraction"
BATCHES = ((1,), (5, 9), (1, 17, 3))
WIDTH = 8  # of a head of the tiny models


def table(model_type: str) -> ModelFamily:
    return DistilBert() if model_type == "distilbert" else Bert()


def dense(model_type: str = "bert", head: Head = CLASSIFIER, **options: Any) -> nn.Module:
    return tiny_model(model_type, head=head, num_labels=None if head == ENCODER else 2, **options)


def fused(model: nn.Module, path: Path, head: Head = CLASSIFIER, names: Sequence[str] | None = None) -> Artifact:
    names = names or accepted_inputs(model)
    artifact = OnnxExporter().export_fused(model, path, input_names=names, output_names=OUTPUT_NAMES[head])
    assert isinstance(artifact, Artifact)
    return artifact


def attention_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain]


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}


def head_counts(path: Path) -> list[int]:
    return [attributes(node)["num_heads"] for node in attention_nodes(onnx.load(path))]


def batch_of(lengths: tuple[int, ...]) -> dict[str, torch.Tensor]:
    batch = tiny_batch(lengths=lengths, labels=False, seed=len(lengths))
    return batch | {"token_type_ids": (batch["input_ids"] % 2) * batch["attention_mask"]}


@pytest.mark.parametrize(
    ("model_type", "head", "dropped", "heads"),
    [
        ("bert", CLASSIFIER, (), [2, 4]),
        ("bert", ANSWERS, (0,), [4]),
        ("roberta", ENCODER, (1,), [2]),
        ("xlm-roberta", ANSWERS, (), [2, 4]),
        ("electra", CLASSIFIER, (), [2, 4]),
        ("electra", ENCODER, (0,), [4]),
        ("distilbert", CLASSIFIER, (), [2, 4]),
        ("distilbert", ANSWERS, (0,), [4]),
        ("distilbert", ENCODER, (), [2, 4]),
    ],
)
def test_masked_equals_shrunk_equals_fused_without_heads_sublayers_and_layers(
    tmp_path: Path, model_type: str, head: Head, dropped: tuple[int, ...], heads: list[int]
) -> None:
    model, family = dense(model_type, head), table(model_type)
    groups = family.groups(model)
    masks = example_masks(groups)["ragged"]  # the top layer has no heads, the bottom one no neurons
    smaller = shrink(model, family, masks, dropped_layers=dropped)
    artifact = fused(smaller, tmp_path / "model_ort.onnx", head)
    assert artifact.max_abs_diff <= 1e-5
    assert head_counts(artifact.path) == heads
    for lengths in BATCHES:
        batch = batch_of(lengths)
        assert_onnx_equals_torch(artifact.path, smaller, batch, tolerance=1e-5)
        with torch.no_grad(), masked(model, groups, masks.keep), skipped(model, groups, dropped):
            expected = raw_output(model, batch)
        torch.testing.assert_close(raw_output(smaller, batch), expected, rtol=0, atol=1e-5)


def test_a_model_without_any_head_has_no_attention_in_its_file(tmp_path: Path) -> None:
    model = dense(num_hidden_layers=1)
    smaller = shrink(model, Bert(), example_masks(Bert().groups(model))["no heads"])
    artifact = fused(smaller, tmp_path / "model_ort.onnx")
    assert [entry.domain for entry in onnx.load(artifact.path).opset_import] == [""]
    assert_onnx_equals_torch(artifact.path, smaller, batch_of((5, 9)), tolerance=1e-5)


def test_a_model_that_is_given_no_mask_attends_to_everything(tmp_path: Path) -> None:
    model = dense("distilbert", num_hidden_layers=1)
    artifact = fused(model, tmp_path / "model_ort.onnx", names=("input_ids",))
    assert [len(node.input) for node in attention_nodes(onnx.load(artifact.path))] == [3]
    ids = batch_of((5, 9))["input_ids"]
    (found,) = open_session(artifact.path).run(None, {"input_ids": ids.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(found, model(input_ids=ids).logits.numpy(), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    """One head, three heads: the first layer's hold 8 of 32 columns."""
    model = dense(num_hidden_layers=2)
    kept = (torch.tensor([False, True, False, False]), torch.tensor([True, True, False, True]))
    return shrink(model, Bert(), Masks({f"encoder.layer.{index}.attention": mask for index, mask in enumerate(kept)}))


def state(model: nn.Module) -> tuple[Any, ...]:
    """Everything an export might change: modules, parameters, weights, and what the model says."""
    modules = [(name, type(module), id(module), module.training) for name, module in model.named_modules()]
    parameters = [(name, id(tensor), tensor.requires_grad) for name, tensor in model.named_parameters()]
    return modules, parameters, fingerprint(model), raw_output(model, batch_of((5, 9))).tolist()


@pytest.fixture(scope="module")
def before(bert: nn.Module) -> tuple[Any, ...]:
    return state(bert)


@pytest.fixture(scope="module")
def exported(bert: nn.Module, before: tuple[Any, ...], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    del before  # to be looked at first
    return fused(bert, tmp_path_factory.mktemp("a") / "model_ort.onnx")


def test_the_users_model_is_untouched(bert: nn.Module, before: tuple[Any, ...], exported: Artifact) -> None:
    assert exported.path.is_file()
    assert state(bert) == before


def test_every_layer_says_its_own_heads_and_hides_padding_as_torch_does(exported: Artifact, bert: nn.Module) -> None:
    proto = onnx.load(exported.path)
    weights = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for node, heads in zip(attention_nodes(proto), (1, 3), strict=True):
        assert (node.domain, node.op_type) == ("com.microsoft", "Attention")
        assert attributes(node) == {
            "num_heads": heads,
            "qkv_hidden_sizes": [heads * WIDTH] * 3,
            "mask_filter_value": torch.finfo(torch.float32).min,
        }
        assert weights[node.input[1]] == (32, 3 * heads * WIDTH)
    assert live_attention(bert) == (AttentionShape(1, (8,) * 3), AttentionShape(3, (24,) * 3))


def test_padding_may_stand_anywhere(exported: Artifact, bert: nn.Module) -> None:
    batch = batch_of((6, 6, 6))
    batch["attention_mask"] = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1]])
    assert_onnx_equals_torch(exported.path, bert, batch, tolerance=1e-5)


def test_the_artifact_describes_a_file_of_two_domains(exported: Artifact) -> None:
    proto = onnx.load(exported.path)
    assert (exported.format, exported.opset) == ("onnx-ort", 20)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 20, "com.microsoft": 1}
    assert {node.op_type for node in proto.graph.node if node.domain} == {"Attention"}
    assert not proto.functions
    for put in proto.graph.input:
        assert [dim.dim_param for dim in put.type.tensor_type.shape.dim] == ["batch", "sequence"]


def test_the_file_has_the_same_bytes_twice_and_tells_nothing_about_the_machine(
    exported: Artifact, bert: nn.Module, tmp_path: Path
) -> None:
    model: Any = shrink(bert, Bert(), Masks({})).train()
    again = fused(model, tmp_path / "a" / "longer" / "path" / "m.onnx")
    content = exported.path.read_bytes()
    assert again.path.read_bytes() == content
    assert [path.name for path in again.path.parent.iterdir()] == ["m.onnx"]
    assert all(module.training for module in model.modules())
    for trace in (b".py", b"site-packages", b"transformers", str(Path.cwd()).encode(), str(tmp_path.parent).encode()):
        assert trace not in content


def test_zeros_are_counted_in_fused_weights_too(exported: Artifact, bert: nn.Module, tmp_path: Path) -> None:
    proto = onnx.load(exported.path)
    name = attention_nodes(proto)[0].input[1]
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 0, name))
    onnx.save(proto, str(tmp_path / "m.onnx"))
    before, after = file_sparsity(exported.path), file_sparsity(tmp_path / "m.onnx")
    linears = [module for module in bert.modules() if isinstance(module, nn.Linear)]
    assert before["elements"] == after["elements"] == sum(linear.weight.numel() for linear in linears)
    assert after["zeros"] - before["zeros"] == 32 * 3 * WIDTH


def test_what_is_traced_shares_weights_and_no_modules(bert: nn.Module) -> None:
    traced = FusedSignature(Signature(bert, ("input_ids",), ("logits",)))
    assert not {id(module) for module in traced.modules()} & {id(module) for module in bert.modules()}
    own = {id(parameter) for parameter in bert.parameters()}
    assert {id(parameter) for parameter in traced.parameters()} < own
    assert [type(module).__name__ for module in traced.modules()].count("FusedAttention") == 2
    assert traced.mask.tensor is None


def plant(proto: onnx.ModelProto, node: int, heads: int) -> onnx.ModelProto:
    planted = onnx.ModelProto()
    planted.CopyFrom(proto)
    entry = next(entry for entry in attention_nodes(planted)[node].attribute if entry.name == "num_heads")
    entry.i = heads
    return planted


def test_a_wrong_head_count_in_the_graph_is_named(
    bert: nn.Module, exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = plant(onnx.load(exported.path), 0, 2)
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    with pytest.raises(CompressorError, match=r"\) 2 \(8/8/8\), 3 \(24/24/24\); the model has 1 \(8/8/8\), 3"):
        fused(bert, tmp_path / "model_ort.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_head_count_is_found_by_parity_alone(
    bert: nn.Module, exported: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = plant(onnx.load(exported.path), 1, 2)
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    monkeypatch.setattr(_torch_onnx, "check_attention", lambda *_: None)
    with pytest.raises(CompressorError, match="differs from torch by"):
        fused(bert, tmp_path / "model_ort.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_counts_its_heads_wrongly_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def miscounted(block: FusedAttention, *options: Any) -> None:
        right(block, *options)
        block.shape = AttentionShape(2, block.shape.qkv_hidden_sizes)

    right = FusedAttention.__init__
    monkeypatch.setattr(FusedAttention, "__init__", miscounted)
    with pytest.raises(CompressorError, match=r" 2 \(32/32/32\); the model has 4 \(32/32/32\)"):
        fused(dense(num_hidden_layers=1), tmp_path / "model_ort.onnx")


def test_attention_in_another_order_or_missing_is_named(exported: Artifact, bert: nn.Module) -> None:
    proto, expected = onnx.load(exported.path), live_attention(bert)
    check_attention(proto, expected)
    with pytest.raises(CompressorError, match=r"the model has 3 \(24/24/24\), 1 \(8/8/8\)"):
        check_attention(proto, expected[::-1])
    with pytest.raises(CompressorError, match="the model has none"):
        check_attention(proto, ())


def test_foreign_operators_but_attention_are_refused(
    exported: Artifact, bert: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = onnx.load(exported.path)
    next(node for node in wrong.graph.node if node.op_type == "Gelu").domain = "com.microsoft"
    monkeypatch.setattr(_torch_onnx, "_graph", lambda *_: wrong)
    with pytest.raises(CompressorError, match=r"other than standard ONNX operators: com\.microsoft::Gelu$"):
        fused(bert, tmp_path / "model_ort.onnx")


def test_the_portable_file_may_not_hold_fused_attention(exported: Artifact) -> None:
    with pytest.raises(CompressorError, match=r"other than standard ONNX operators: com\.microsoft::Attention$"):
        _torch_onnx._standard_only(onnx.load(exported.path))


def test_attention_that_does_more_gets_no_such_file(tmp_path: Path) -> None:
    def export(model: nn.Module, exporter: Exporter) -> Artifact | str | None:
        return exporter.export_fused(
            model, tmp_path / "m.onnx", input_names=("input_ids",), output_names=("last_hidden_state",)
        )

    model: Any = dense(head=ENCODER)
    assert family_of(model) is not None
    assert export(model, OnnxExporter(fused=False)) is None
    for name, value in {"is_decoder": True, "position_embedding_type": "relative_key", "model_type": "mpnet"}.items():
        other: Any = dense(head=ENCODER)
        setattr(other.config, name, value)
        assert str(export(other, OnnxExporter())).endswith(
            "attends in a way that onnxruntime's attention operator does not know"
        )
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CompressorError, match="its attention cannot be fused"):
        live_attention(other)


def test_an_exporter_need_not_have_such_a_file(tmp_path: Path) -> None:
    class Portable(Exporter):
        name = "portable"

        def export(self, model: nn.Module, path: Path, **names: Any) -> Artifact:
            raise NotImplementedError

    assert Portable().export_fused(dense(), tmp_path / "m.onnx", input_names=(), output_names=()) is None


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_attention_without_biases_or_hidden_states_is_no_surprise(model_type: str) -> None:
    model, family = dense(model_type), table(model_type)
    group = family.groups(model)[0]
    block: Any = model.get_submodule(group.block)
    model.get_submodule(group.producers[1].module).bias = None  # type: ignore[assignment]
    made = FusedAttention(block, group, PaddingMask())
    assert made.get_buffer("bias").reshape(3, -1).any(dim=1).tolist() == [True, False, True]
    with pytest.raises(TypeError, match="expected hidden states"):
        made()
