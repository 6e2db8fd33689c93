from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import CompressorError, InputError
from compressor.model import Masks, raw_output, shrink
from compressor.model.groups import PrunableGroup
from compressor.plugin import ModelFamily
from compressor.run.load import load
from compressor.testing import (
    assert_family_conforms,
    assert_masked_equals_shrunk,
    assert_skipped_equals_dropped,
    example_masks,
    tiny_batch,
    tiny_model,
)
from compressor_plugins.families import bert, deberta_v2, distilbert, modernbert, mpnet
from compressor_plugins.families._shared_bias import SelectedHeads
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.families.modernbert import ModernBert
from compressor_plugins.families.mpnet import MPNet

FAMILIES: dict[str, ModelFamily] = {
    model_type: family
    for family in (Bert(), DistilBert(), DebertaV2(), ModernBert(), MPNet())
    for model_type in family.model_types
}
DEBERTAS: dict[str, dict[str, Any]] = {
    "projections of its own": {"share_att_key": False},
    "one term": {"share_att_key": False, "pos_att_type": ["p2c"]},
    "no relative positions": {"relative_attention": False, "pos_att_type": None},
    "a convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
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


@pytest.mark.parametrize("kind", DEBERTAS)
def test_every_kind_of_deberta_shrinks_to_what_masking_gives(kind: str) -> None:
    model, family = tiny_model("deberta-v2", **DEBERTAS[kind]), FAMILIES["deberta-v2"]
    groups = family.groups(model)
    for masks in example_masks(groups, seed=2).values():
        assert_masked_equals_shrunk(model, family, masks, tiny_batch(lengths=(1, 9, 2, 31), labels=False))
    for layer in set(range(3)) - set(family.fixed_layers(model)):
        assert_skipped_equals_dropped(
            model, family, example_masks(groups)["ragged"], tiny_batch(labels=False), (layer,)
        )


def test_a_head_of_deberta_takes_its_rows_of_the_position_projections_with_it() -> None:
    model, family = tiny_model("deberta-v2", share_att_key=False), FAMILIES["deberta-v2"]
    shrunk = shrink(model, family, example_masks(family.groups(model))["one head"])
    name = "deberta.encoder.layer.1.attention.self.pos_query_proj.weight"
    assert (model.get_parameter(name).shape, shrunk.get_parameter(name).shape) == ((32, 32), (8, 32))


def test_mpnet_reads_of_the_shared_biases_those_of_its_own_heads() -> None:
    """Of two prunings, one after the other, too."""
    model, family = tiny_model("mpnet"), FAMILIES["mpnet"]
    first = {group.name: torch.tensor([False, True, True, True]) for group in family.groups(model)[::2]}
    second = {group.name: torch.tensor([True, False, True]) for group in family.groups(model)[::2]}
    twice = shrink(shrink(model, family, Masks(first)), family, Masks(second))
    once = {name: torch.tensor([False, True, False, True]) for name in first}
    batch = tiny_batch(labels=False)
    with torch.no_grad():
        assert torch.equal(raw_output(twice, batch), raw_output(shrink(model, family, Masks(once)), batch))
    assert [block.kept for block in twice.modules() if isinstance(block, SelectedHeads)] == [(1, 3)] * 3
    assert twice.get_parameter("mpnet.encoder.relative_attention_bias.weight").shape == (32, 4)


@pytest.mark.parametrize(
    ("model_type", "options", "why"),
    [
        ("modernbert", {}, "the lowest layer|every third layer"),
        ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu"}, "convolution"),
    ],
)
def test_a_layer_that_cannot_go_is_refused_with_the_reason(model_type: str, options: dict[str, Any], why: str) -> None:
    model, family = tiny_model(model_type, **options), FAMILIES[model_type]
    with pytest.raises(CompressorError, match=f"dropped layer 0: it cannot go: .*({why})"):
        shrink(model, family, Masks({}), dropped_layers=(0,))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("albert", "all its layers share one set of weights"),
        ("mobilebert", "bottleneck"),
        ("squeezebert", "grouped convolutions"),
        ("deberta", "q_bias, v_bias"),
    ],
)
def test_what_no_table_can_describe_is_refused_with_the_reason(tmp_path: Path, model_type: str, why: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(InputError, match=rf"{model_type}: heads and neurons .* cannot be removed: .*{why}") as refused:
        load(tmp_path)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("model_type", "prefix", "first"),
    [
        ("bert", "bert.", "encoder.layer.0.attention"),
        ("roberta", "roberta.", "encoder.layer.0.attention"),
        ("xlm-roberta", "roberta.", "encoder.layer.0.attention"),
        ("camembert", "roberta.", "encoder.layer.0.attention"),
        ("data2vec-text", "data2vec_text.", "encoder.layer.0.attention"),
        ("electra", "electra.", "encoder.layer.0.attention"),
        ("deberta-v2", "deberta.", "encoder.layer.0.attention"),
        ("modernbert", "model.", "layers.0.attention"),
        ("mpnet", "mpnet.", "encoder.layer.0.attention"),
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


def test_conformance_finds_a_wrong_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.testing.declarations.heavy_imports", lambda _: ())  # those of this module
    with pytest.raises(RuntimeError, match="size"):
        assert_family_conforms(Forgetful(), "bert")


def test_conformance_refuses_a_type_the_family_does_not_name() -> None:
    with pytest.raises(AssertionError, match="distilbert"):
        assert_family_conforms(Bert(), "distilbert")


def test_plugins_provide_their_families() -> None:
    assert list(bert.compressor_components()) == [Bert]
    assert list(distilbert.compressor_components()) == [DistilBert]
    assert list(deberta_v2.compressor_components()) == [DebertaV2]
    assert list(modernbert.compressor_components()) == [ModernBert]
    assert list(mpnet.compressor_components()) == [MPNet]


def test_declarations_of_families_and_exporters_load_without_torch() -> None:
    code = (
        "import sys, compressor_plugins.families.bert, compressor_plugins.families.distilbert, "
        "compressor_plugins.families.deberta_v2, compressor_plugins.families.modernbert, compressor_plugins.families.mpnet, "
        "compressor_plugins.exporters.onnx; print([m for m in ('torch', 'transformers', 'onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
