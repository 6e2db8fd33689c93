"""The files of a profile are those of pruned models: same numbers as torch, whether exported or cut out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.model import shapes, surgery
from compressor.model.masks import Masks
from compressor.model.runtime import open_session
from compressor.plugin import Registry
from compressor.plugin.components import Exporter
from compressor.run.load import families
from compressor.testing import tiny_model
from compressor.verify import variants
from compressor.verify.graph_template import GraphTemplate, UnlikeGraphsError
from compressor.verify.variants import Points, Subject, ffn_widths, skeleton, write_files

REGISTRY = Registry.load()
NAMES = ("input_ids", "attention_mask")


def subject(model_type: str = "bert", **shape: Any) -> Subject:
    exporter = cast("type[Exporter]", REGISTRY.get("exporter", "onnx"))()

    def export(model: nn.Module, path: Path) -> None:
        exporter.export(model, path, input_names=NAMES, output_names=("logits",))

    return Subject(skeleton(tiny_model(model_type, **shape)), families(REGISTRY)[model_type], export)


def outputs(path: Path, ids: np.ndarray) -> np.ndarray:
    (found,) = open_session(path).run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    return np.asarray(found)


def torch_outputs(of: Subject, left: variants.Left, ids: np.ndarray) -> np.ndarray:
    keep = {group.name: torch.arange(group.units) < left[group.kind != "heads"][group.index] for group in of.groups}
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.int64)}
    with torch.no_grad():
        return np.asarray(cast("Any", surgery.shrink(of.model, of.family, Masks(keep)))(**batch).logits)


@pytest.mark.parametrize(("model_type", "layers"), [("bert", 2), ("distilbert", 1)])
def test_every_file_computes_what_the_pruned_model_computes(model_type: str, layers: int, tmp_path: Path):
    exported: list[str] = []
    of = subject(model_type, num_hidden_layers=layers)

    def export(model: nn.Module, path: Path) -> None:
        exported.append(path.name)
        of.export(model, path)

    points = Points.of(of)
    files = write_files(Subject(of.model, of.family, export), points, tmp_path)
    assert set(files) == {points.empty, points.unlike, *(left for lefts in points.series for left in lefts.values())}
    assert len(exported) == 8  # two for each of three series; the others are cut out of these
    ids = np.random.default_rng(0).integers(5, 100, (2, 9))
    for left, path in files.items():
        np.testing.assert_allclose(outputs(path, ids), torch_outputs(of, left, ids), atol=1e-5)


def test_where_graphs_are_unlike_every_count_is_exported(tmp_path: Path):
    exported: list[Path] = []

    def export(_: nn.Module, path: Path) -> None:
        onnx.save_model(graph(6, size=2, value=float(len(exported))), str(path))
        exported.append(path)

    of = subject(num_hidden_layers=1, num_attention_heads=2)
    points = Points(heads=(1, 2), neurons=(16, 32, 48), layers=1)
    files = write_files(Subject(of.model, of.family, export), points, tmp_path)
    assert sorted(exported) == sorted(files.values())


def graph(width: int, *, size: int, operator: str = "Relu", value: float = 1.0) -> onnx.ModelProto:
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node(operator, ["y"], ["z"])]
    weights = np.full((3, 12), value, np.float32) * np.arange(12, dtype=np.float32)
    constants = {"w": weights[:, :width].copy(), "shape": np.array([0, -1, size, 5])}
    initializers = [onnx.numpy_helper.from_array(data, name) for name, data in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], initializers))


def test_weights_are_cut_and_sizes_in_the_graph_scaled():
    made = GraphTemplate.between(graph(12, size=4), 4, smaller=graph(6, size=2), reference=2).at(3)
    weights, sizes = (onnx.numpy_helper.to_array(tensor) for tensor in made.graph.initializer)
    assert weights.shape == (3, 9)
    assert sizes.tolist() == [0, -1, 3, 5]


@pytest.mark.parametrize("parts", [2, 3])
def test_fused_weights_are_cut_in_each_of_their_parts(parts: int):
    """A gated FFN's halves, or query, key and value: the leading columns of each stay."""

    def left(count: int) -> onnx.ModelProto:
        made = graph(12, size=count)
        whole = onnx.numpy_helper.to_array(made.graph.initializer[0])
        cut = whole[:, np.arange(12).reshape(parts, -1)[:, :count].ravel()]
        made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(cut, "w"))
        return made

    made = GraphTemplate.between(left(12 // parts), 12 // parts, smaller=left(2), reference=2).at(3)
    assert made.graph.initializer[0] == left(3).graph.initializer[0]


@pytest.mark.parametrize(
    "other", [graph(6, size=2, operator="Neg"), graph(6, size=2, value=2.0), graph(6, size=3), graph(5, size=2)]
)
def test_graphs_that_differ_by_more_than_a_cut_are_refused(other: onnx.ModelProto):
    with pytest.raises(UnlikeGraphsError):
        GraphTemplate.between(graph(12, size=4), 4, smaller=other, reference=2)


def test_a_skeleton_is_dense_whatever_the_model_is_and_leaves_randomness_alone():
    model = tiny_model()
    family = families(REGISTRY)["bert"]
    keep = {group.name: torch.arange(group.units) < 1 for group in family.groups(model)}
    pruned = surgery.shrink(model, family, Masks(keep))
    before = torch.random.get_rng_state()
    dense: Any = skeleton(pruned)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [group.units for group in family.groups(dense)] == [group.units for group in family.groups(model)]
    assert not hasattr(dense.config, shapes.FIELD)
    assert hasattr(cast("Any", pruned).config, shapes.FIELD)


@pytest.mark.parametrize(
    ("units", "expected"),
    [(8, (8,)), (48, (16, 32, 48)), (100, (16, 32, 48, 64, 80, 96, 100)), (1536, (16, *range(96, 1537, 96)))],
)
def test_widths_are_multiples_of_16_up_to_all(units: int, expected: Sequence[int]):
    assert ffn_widths(units) == tuple(expected)
