from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.model import Masks, PrunableGroup, removable_units, shrink
from compressor.model.outputs import raw_output
from compressor.plugin import Registry
from compressor.testing import assert_onnx_equals_torch, tiny_batch, tiny_model
from tests.plugins.sessions import FAMILIES

TYPES = pytest.mark.parametrize("model_type", list(FAMILIES))


def zero(model: nn.Module, group: PrunableGroup, units: list[int], *, side: str) -> None:
    """Zero the columns that read some units, or the rows of what makes them; biases stay."""
    pieces = [group.consumer] if side == "consumer" else [*group.producers]
    for piece in pieces:
        weight = model.get_parameter(f"{piece.module}.weight")
        for unit in units:
            first = piece.offset + unit * piece.width
            with torch.no_grad():
                weight.narrow(piece.dim, first, piece.width).zero_()


def removed(model: nn.Module, family: Any, **options: Any) -> tuple[nn.Module, Masks]:
    masks, biases = removable_units(model, family.groups(model), **options)
    return shrink(model, family, masks, biases), masks


def assert_same(model: nn.Module, smaller: nn.Module) -> None:
    for lengths in ((7, 3, 12, 5), (1,), (30, 2)):
        batch = tiny_batch(lengths=lengths, labels=False)
        with torch.no_grad():
            difference = raw_output(model, batch) - raw_output(smaller, batch)
        assert float(difference.abs().max()) <= 1e-5


@TYPES
@pytest.mark.parametrize("side", ["consumer", "producers"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_empty_units_go_and_the_output_stays(model_type: str, side: str, attention: str):
    family = FAMILIES[model_type]
    if attention == "sdpa" and not tiny_model(model_type)._supports_sdpa:
        pytest.skip("this version of transformers has no sdpa for this model")
    model = tiny_model(model_type, attention=attention)
    first, second, third, fourth, *_ = family.groups(model)
    for group, units in (
        (first, [1, 3]),
        (second, list(range(0, 40, 3))),
        (third, [0, 1, 2, 3]),
        (fourth, list(range(48))),
    ):
        zero(model, group, units, side=side)
    smaller, masks = removed(model, family)
    assert [int((~mask).sum()) for mask in masks.keep.values()] == [2, 14, 4, 48]
    assert_same(model, smaller)
    assert [group.units for group in family.groups(smaller)][:4] == [2, 34, 0, 0]


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_the_exported_file_gives_what_the_zeros_gave(model_type: str, tmp_path: Path):
    family = FAMILIES[model_type]
    model = tiny_model(model_type)
    for group, units in zip(family.groups(model), ([1, 3], range(30), range(4), range(48)), strict=False):
        zero(model, group, list(units), side="producers")
    smaller, _ = removed(model, family)
    exporter = Registry.load().get("exporter", "onnx")()
    artifact = exporter.export(  # type: ignore[attr-defined]
        smaller, tmp_path / "model.onnx", input_names=("input_ids", "attention_mask"), output_names=("logits",)
    )
    assert_onnx_equals_torch(artifact.path, model, tiny_batch(), tolerance=1e-5)


def test_what_constant_units_gave_is_not_nothing():
    model, family = tiny_model(), FAMILIES["bert"]
    group = family.groups(model)[1]
    zero(model, group, list(range(20)), side="producers")
    masks, biases = removable_units(model, family.groups(model))
    assert list(biases) == ["bert.encoder.layer.0.output.dense.bias"]
    unfolded = shrink(model, family, masks)
    with torch.no_grad():
        difference = raw_output(model, tiny_batch()) - raw_output(unfolded, tiny_batch())
    assert float(difference.abs().max()) > 1e-3


def test_partial_heads_queries_and_the_residual_stream_stay():
    model, family = tiny_model(), FAMILIES["bert"]
    layer = model.get_submodule("bert.encoder.layer.0")
    with torch.no_grad():
        layer.get_parameter("attention.self.value.weight")[:7].zero_()  # of a head of 8
        layer.get_parameter("attention.self.query.weight").zero_()
        layer.get_parameter("output.dense.weight")[3].zero_()
        layer.get_parameter("intermediate.dense.weight")[:, 2].zero_()
    masks, biases = removable_units(model, family.groups(model))
    assert masks == Masks({})
    assert biases == {}


def test_a_consumer_without_a_bias_keeps_what_it_cannot_say():
    model, family = tiny_model(), FAMILIES["bert"]
    group = family.groups(model)[1]
    model.get_submodule(group.consumer.module).bias = None
    zero(model, group, [0, 1, 2], side="producers")
    with torch.no_grad():
        model.get_parameter(f"{group.producers[0].module}.bias")[0] = 0.0  # gelu(0) = 0: nothing to say
    smaller, masks = removed(model, family)
    assert (~masks.keep[group.name]).nonzero().flatten().tolist() == [0]
    assert_same(model, smaller)


def test_a_grid_is_not_shifted():
    model, family = tiny_model(), FAMILIES["bert"]
    group = family.groups(model)[1]
    zero(model, group, [0], side="consumer")
    masks, _ = removable_units(model, family.groups(model), aligned=[f"{group.consumer.module}.weight"])
    assert masks == Masks({})


def test_a_whole_model_loses_what_the_seeds_arithmetic_says():
    """2h + 1 parameters per neuron, 4hd + 3d per head."""
    model, family = tiny_model(), FAMILIES["bert"]
    heads, neurons, *_ = family.groups(model)
    zero(model, heads, [2], side="consumer")
    zero(model, neurons, [5, 6], side="consumer")
    before = sum(parameter.numel() for parameter in model.parameters())
    smaller, _ = removed(model, family)
    after = sum(parameter.numel() for parameter in smaller.parameters())
    assert before - after == 2 * (2 * 32 + 1) + 4 * 32 * 8 + 3 * 8
