from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from compressor.model.groups import PrunableGroup
from compressor.plugin import ModelFamily
from compressor.testing import (
    assert_family_conforms,
    assert_masked_equals_shrunk,
    example_masks,
    tiny_batch,
    tiny_model,
)
from compressor_plugins.families import bert, distilbert
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

FAMILIES: dict[str, ModelFamily] = {
    model_type: family for family in (Bert(), DistilBert()) for model_type in family.model_types
}


def implementations(model_type: str) -> list[str]:
    model: Any = tiny_model(model_type)
    return ["eager", "sdpa"] if model._supports_sdpa else ["eager"]


CASES = [(model_type, attention) for model_type in FAMILIES for attention in implementations(model_type)]


@pytest.mark.parametrize(("model_type", "attention"), CASES)
def test_shrunk_model_matches_masked_model_on_ragged_padding(model_type: str, attention: str) -> None:
    model: Any = tiny_model(model_type, attention=attention, num_hidden_layers=4)
    assert model.config._attn_implementation == attention
    for masks in example_masks(FAMILIES[model_type].groups(model), seed=1).values():
        assert_masked_equals_shrunk(model, FAMILIES[model_type], masks, tiny_batch(lengths=(1, 9, 2, 31), labels=False))


@pytest.mark.parametrize(
    ("model_type", "prefix", "first"),
    [
        ("bert", "bert.", "encoder.layer.0.attention"),
        ("roberta", "roberta.", "encoder.layer.0.attention"),
        ("xlm-roberta", "roberta.", "encoder.layer.0.attention"),
        ("electra", "electra.", "encoder.layer.0.attention"),
        ("distilbert", "distilbert.", "transformer.layer.0.attention"),
    ],
)
def test_groups_have_the_same_names_with_and_without_a_head(model_type: str, prefix: str, first: str) -> None:
    family = FAMILIES[model_type]
    classifier = family.groups(tiny_model(model_type))
    bare = family.groups(tiny_model(model_type, num_labels=None))
    assert [group.name for group in classifier] == [group.name for group in bare]
    assert classifier[0].name == first
    assert [group.units for group in classifier] == [4, 48] * 3
    assert classifier[0].width == 8
    assert [group.layer for group in classifier] == [prefix + group.layer for group in bare]


class Forgetful(Bert):
    """BERT's table with the value projection left out: what the conformance test is for."""

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        return tuple(replace(group, producers=group.producers[:2]) for group in super().groups(model))


def test_conformance_finds_a_wrong_table() -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        assert_family_conforms(Forgetful(), "bert")


def test_conformance_refuses_a_type_the_family_does_not_name() -> None:
    with pytest.raises(AssertionError, match="distilbert"):
        assert_family_conforms(Bert(), "distilbert")


def test_plugins_provide_their_families() -> None:
    assert list(bert.compressor_components()) == [Bert]
    assert list(distilbert.compressor_components()) == [DistilBert]


def test_declarations_of_families_and_exporters_load_without_torch() -> None:
    code = (
        "import sys, compressor_plugins.families.bert, compressor_plugins.families.distilbert, "
        "compressor_plugins.exporters.onnx; print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
