"""Int8 files: what is quantised, what stays, and that nothing but numbers differs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.errors import CompressorError, InputError
from compressor.model.artifact import Artifact
from compressor.model.runtime import open_session
from compressor.model.surgery import shrink
from compressor.plugin import ModelFamily, QuantizationData, Quantizer
from compressor.testing import example_masks, tiny_batch, tiny_model
from compressor_plugins.exporters.onnx import OnnxExporter
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.quantizers import _onnxruntime, int8
from compressor_plugins.quantizers._layers import Layer, products_of
from compressor_plugins.quantizers._onnxruntime import Calibration, Recipe, quantize_file
from compressor_plugins.quantizers._search import Search, keep_within
from compressor_plugins.quantizers.int8 import Int8Dynamic, Int8Static

INPUTS = ("input_ids", "attention_mask")
NARROW = pytest.mark.parametrize(
    "quantizer", [Int8Dynamic(reduce_range=True), Int8Static(reduce_range=True)], ids=lambda one: one.name
)
"""With weights of 7 bits: without VNNI sums of 8-bit products saturate, and these weights are large."""
BOTH = pytest.mark.parametrize("quantizer", [Int8Dynamic(), Int8Static()], ids=lambda one: one.name)


def batches() -> Iterator[Mapping[str, np.ndarray]]:
    for seed in range(3):
        batch = tiny_batch(lengths=(9, 31, 4), labels=False, seed=seed)
        yield {name: batch[name].numpy() for name in INPUTS}


DATA = QuantizationData(batches=batches, drop=lambda *_, **__: 0.0)


def exported(model_type: str, place: Path) -> Artifact:
    family: ModelFamily = DistilBert() if model_type == "distilbert" else Bert()
    model = tiny_model(model_type)
    ragged = shrink(model, family, example_masks(family.groups(model))["ragged"])
    return OnnxExporter().export(ragged, place / "model.onnx", input_names=INPUTS, output_names=("logits",))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A BERT with ragged layers and emptied sublayers."""
    return exported("bert", tmp_path_factory.mktemp("float32"))


def outputs(path: Path) -> np.ndarray:
    session = open_session(path)
    return np.concatenate([session.run(None, dict(batch))[0] for batch in batches()])


def stored(path: Path, kind: int) -> list[Any]:
    return [tensor for tensor in onnx.load(str(path)).graph.initializer if tensor.data_type == kind and tensor.dims]


@NARROW
@pytest.mark.parametrize("model_type", ["bert", "roberta", "electra", "distilbert"])
def test_int8_follows_float32_with_unequal_and_emptied_sublayers(
    quantizer: Quantizer, model_type: str, artifact: Artifact, tmp_path: Path
):
    source = artifact if model_type == "bert" else exported(model_type, tmp_path)
    made = quantizer.quantize(source, DATA, tmp_path / "model_int8.onnx")
    expected, found = outputs(source.path), outputs(made.path)
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    assert not np.array_equal(found, expected)
    assert made.max_abs_diff == pytest.approx(np.abs(found - expected)[:3].max())  # rows of the first batch
    assert made.size_bytes == made.path.stat().st_size < source.size_bytes
    assert (made.format, made.input_names, made.output_names) == ("onnx-int8", INPUTS, ("logits",))


@BOTH
def test_every_stored_weight_of_a_product_is_signed_int8(quantizer: Quantizer, artifact: Artifact, tmp_path: Path):
    made = quantizer.quantize(artifact, DATA, tmp_path / "q.onnx")
    layers = products_of(artifact.path).layers
    weights = [tensor for tensor in stored(made.path, TensorProto.INT8) if len(tensor.dims) == 2]
    assert sorted(int(np.prod(tensor.dims)) for tensor in weights) == sorted(layer.macs for layer in layers)
    assert made.details["quantized"] == made.details["layers"] == len(layers)
    assert made.details["kept_float32"] == []


@BOTH
def test_a_row_with_outliers_spoils_no_others(quantizer: Quantizer, artifact: Artifact, tmp_path: Path):
    """One output of the first weight is a hundred times as large; its reader is turned down as much."""
    model = onnx.load(str(artifact.path))
    first = products_of(artifact.path).layers[0]
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == first.weight)
    values = onnx.numpy_helper.to_array(weight).copy()
    values[:, 0] *= 100
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, str(tmp_path / "outliers.onnx"))
    source = replace(artifact, path=tmp_path / "outliers.onnx")
    errors = {
        each: type(quantizer)(per_channel=each, reduce_range=True)
        .quantize(source, DATA, tmp_path / f"{each}.onnx")
        .max_abs_diff
        for each in (True, False)
    }
    assert errors[True] < 0.7 * errors[False]


def test_products_of_two_activations_stay_float32_in_a_static_file(artifact: Artifact, tmp_path: Path):
    made = Int8Static().quantize(artifact, DATA, tmp_path / "q.onnx")
    nodes = onnx.load(str(made.path)).graph.node
    from_int8 = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    products = [node for node in nodes if node.op_type in {"MatMul", "Gemm"}]
    weighted = [node for node in products if node.input[1] in from_int8]
    assert len(weighted) == len(products_of(artifact.path).layers)
    assert all(node.input[0] in from_int8 for node in weighted)
    assert not any(set(node.input) & from_int8 for node in products if node not in weighted)
    assert len(products) > len(weighted)


@BOTH
def test_embedding_tables_are_quantised_on_request(quantizer: Quantizer, artifact: Artifact, tmp_path: Path):
    small = type(quantizer)(embeddings=True, reduce_range=True).quantize(artifact, DATA, tmp_path / "small.onnx")
    plain = quantizer.quantize(artifact, DATA, tmp_path / "plain.onnx")
    table = 128 * 32  # tokens by hidden size
    assert plain.size_bytes - small.size_bytes > 2.5 * table
    assert np.abs(outputs(small.path) - outputs(artifact.path)).max() < 0.15 * np.abs(outputs(artifact.path)).max()


@BOTH
def test_the_same_file_gives_the_same_bytes_anywhere(quantizer: Quantizer, artifact: Artifact, tmp_path: Path):
    before = artifact.path.read_bytes()
    one = quantizer.quantize(artifact, DATA, tmp_path / "a" / "q.onnx").path
    other = quantizer.quantize(artifact, DATA, tmp_path / "elsewhere" / "q.onnx").path
    assert one.read_bytes() == other.read_bytes()
    assert artifact.path.read_bytes() == before
    assert [path.name for path in one.parent.iterdir()] == ["q.onnx"]  # nothing half-made is left
    assert str(tmp_path).encode() not in one.read_bytes()


def test_what_a_killed_run_left_half_made_goes(artifact: Artifact, tmp_path: Path):
    left = tmp_path / ".q.onnx.tmp"
    left.mkdir()
    (left / "quantized.onnx").write_bytes(b"half")
    Int8Dynamic().quantize(artifact, DATA, tmp_path / "q.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["q.onnx"]


def test_layers_stay_float32_until_the_drop_is_small_enough(artifact: Artifact, tmp_path: Path):
    """The metric: a point for every layer that is quantised, beyond ten of them."""
    layers = products_of(artifact.path).layers
    asked: list[int] = []

    def drop(path: Path, *, samples: int) -> float:
        assert samples == 7
        asked.append(sum(node.op_type == "MatMulInteger" for node in onnx.load(str(path)).graph.node))
        return 0.01 * (asked[-1] - 10)

    made = Int8Dynamic(max_drop=0.0, samples=7).quantize(artifact, replace(DATA, drop=drop), tmp_path / "q.onnx")
    assert asked == list(range(len(layers), 9, -1))
    assert made.details["quantized"] == 10
    assert made.details["drops"] == pytest.approx([0.01 * (count - 10) for count in asked])
    kept = made.details["kept_float32"]
    assert len(set(kept)) == len(layers) - 10
    assert set(kept) <= {layer.name for layer in layers}
    still = {node.name for node in onnx.load(str(made.path)).graph.node if node.op_type == "MatMul"}
    assert {name.removesuffix("_MatMul") for name in still} >= set(kept)  # a Gemm is renamed on the way


def test_a_static_file_is_calibrated_once_whatever_is_tried(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The ranges do not depend on the layers that are quantised: the file is that of an onnxruntime that keeps none."""
    passes: list[int] = []

    def counted() -> Iterator[Mapping[str, np.ndarray]]:
        yield from batches()
        passes.append(1)

    def drop(path: Path, *, samples: int) -> float:
        nodes = onnx.load(str(path)).graph.node
        from_int8 = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
        return 0.01 * (
            sum(node.op_type in {"MatMul", "Gemm"} and node.input[1] in from_int8 for node in nodes) - samples
        )

    layers = products_of(artifact.path).layers
    data = QuantizationData(batches=counted, drop=drop)
    quantizer = Int8Static(max_drop=0.0, samples=len(layers) - 2)
    made = quantizer.quantize(artifact, data, tmp_path / "q.onnx")
    kept = made.details["kept_float32"]
    assert (len(kept), len(made.details["drops"]), len(passes)) == (2, 3, 1)
    excluded = [*kept, *products_of(artifact.path).others]
    recipe = Recipe(**quantizer.options(), static=True)
    fresh = tmp_path / "fresh.onnx"
    monkeypatch.setattr(_onnxruntime, "KEEPS_RANGES", False)
    quantize_file(artifact.path, fresh, recipe, Calibration(batches, tmp_path / "ranges.json"), excluded=excluded)
    assert not (tmp_path / "ranges.json").exists()
    assert made.path.read_bytes() == fresh.read_bytes()


def test_the_cheapest_exclusion_comes_first(tmp_path: Path):
    """Harm for each multiplication: b 4 / 1, then a 6 / 3, then c 1 / 2."""
    layers = [Layer("a", "w", 3), Layer("b", "w", 1), Layer("c", "w", 2)]
    harm = {"a": 6.0, "b": 4.0, "c": 1.0}
    quantised: list[str] = []

    def write(excluded: Any) -> Path:
        quantised[:] = [layer.name for layer in layers if layer.name not in excluded]
        return tmp_path

    search = Search(layers, write, lambda _: harm[quantised[0]], lambda _: sum(harm[one] for one in quantised))
    assert search.order() == ["b", "a", "c"]
    assert keep_within(search, 11.0).excluded == ()
    assert keep_within(search, 10.0).excluded == ("b",)
    found = keep_within(search, 0.0)
    assert (found.excluded, found.drops) == (("b", "a", "c"), (11.0, 7.0, 1.0, 0.0))


def test_a_drop_that_no_layer_causes_is_an_error(tmp_path: Path):
    """Embedding tables stay quantised whatever is excluded."""
    search = Search([Layer("a", "w", 3)], lambda _: tmp_path, lambda _: 1.0, lambda _: 0.02)
    with pytest.raises(CompressorError, match=r"with every layer in float32 the metric still drops by 0\.02"):
        keep_within(search, 0.01)


def test_samples_without_max_drop_are_refused():
    with pytest.raises(ValueError, match="expected samples with max_drop"):
        Int8Dynamic(samples=64)


VNNI, PLAIN, UNREAD = ["avx2", "avx512_vnni"], ["avx2", "avx512f"], list[str]()


@BOTH
@pytest.mark.parametrize("features", [VNNI, PLAIN, UNREAD], ids=["vnni", "plain", "unread"])
def test_auto_is_seven_bits_where_the_cpu_lacks_vnni_and_is_resolved_at_once(
    quantizer: Quantizer, features: list[str], monkeypatch: pytest.MonkeyPatch
):
    """What is kept is no `auto`: it would be another file on another machine."""
    monkeypatch.setattr(int8, "cpu_features", lambda: features)
    for options in ({}, {"reduce_range": "auto"}):
        assert type(quantizer)(**options).options()["reduce_range"] is (features == PLAIN)
    for asked in (True, False):
        assert type(quantizer)(reduce_range=asked).options()["reduce_range"] is asked


@pytest.mark.parametrize(
    ("features", "asked", "said"),
    [
        (VNNI, "auto", r"INFO int8-dynamic: weights in 8 bits \(reduce_range: false\): this CPU, Zen, needs no fewer"),
        (VNNI, True, r"INFO int8-dynamic: weights in 7 bits \(reduce_range: true\): this CPU, Zen, needs no fewer"),
        (UNREAD, "auto", r"INFO int8-dynamic: weights in 8 bits \(reduce_range: false\): this CPU, Zen, does not say"),
        (
            PLAIN,
            "auto",
            r"INFO int8-dynamic: weights in 7 bits \(reduce_range: true\): this CPU, Zen, has no VNNI.* saturate",
        ),
        (PLAIN, False, r"WARNING int8-dynamic: weights in 8 bits .*no VNNI.* saturate; next step: reduce_range: true"),
    ],
)
def test_how_many_bits_and_why_is_said_before_a_run(
    features: list[str], asked: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(int8, "cpu_features", lambda: features)
    monkeypatch.setattr(int8, "cpu_name", lambda: "Zen")
    with caplog.at_level("INFO", logger="compressor.announced"):
        Int8Dynamic(reduce_range=asked).check()
    ((_, number, line),) = caplog.record_tuples
    assert re.match(said, f"{logging.getLevelName(number)} {line}"), line


def test_seven_bits_are_half_the_steps_and_the_figures_say_so(artifact: Artifact, tmp_path: Path):
    for narrow, largest in ((True, 64), (False, 127)):
        made = Int8Dynamic(reduce_range=narrow).quantize(artifact, DATA, tmp_path / "q.onnx")
        weights = [onnx.numpy_helper.to_array(tensor) for tensor in stored(made.path, TensorProto.INT8)]
        assert max(np.abs(weight.astype(int)).max() for weight in weights if weight.ndim == 2) == largest
        assert made.details["reduce_range"] is narrow


def test_a_fused_file_is_refused(artifact: Artifact, tmp_path: Path):
    model = onnx.load(str(artifact.path))
    model.graph.node.append(helper.make_node("Attention", ["logits"], ["more"], domain="com.microsoft"))
    onnx.save(model, str(tmp_path / "model_ort.onnx"))
    fused = replace(artifact, path=tmp_path / "model_ort.onnx")
    with pytest.raises(InputError, match=r"has operators of com\.microsoft; expected the portable file"):
        Int8Dynamic().quantize(fused, DATA, tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()
