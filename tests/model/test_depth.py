"""Dropped layers: gone from the model, from its file and from its config, and nothing else changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForQuestionAnswering, AutoModelForSequenceClassification

from compressor.errors import CompressorError, InputError
from compressor.model import checkpoint, shapes
from compressor.model.costs import encoder_macs, parameters
from compressor.model.depth import skipped
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output
from compressor.model.surgery import masked, shrink
from compressor.testing import assert_skipped_equals_dropped, example_masks, tiny_batch, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

FAMILIES: dict[str, Any] = {kind: family for family in (Bert(), DistilBert()) for kind in family.model_types}
DROPS = [(0,), (1,), (3,), (0, 1), (1, 2), (0, 2), (1, 3), (0, 1, 2), (1, 2, 3)]
RAGGED = {"lengths": (1, 9, 2, 31), "labels": False}
NOTHING = Masks({})


def output(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return raw_output(model, tiny_batch(lengths=(1, 9, 2, 31), labels=False))


def deep(model_type: str = "bert", **options: Any) -> nn.Module:
    return tiny_model(model_type, num_hidden_layers=4, **options)


def ragged(model: nn.Module, model_type: str = "bert") -> Masks:
    return example_masks(FAMILIES[model_type].groups(model))["ragged"]


def drop(model: nn.Module, *layers: int, masks: Masks = NOTHING, model_type: str = "bert") -> Any:
    return shrink(model, FAMILIES[model_type], masks, dropped_layers=layers)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("dropped", DROPS)
def test_dropped_equals_skipped_beside_ragged_and_emptied_sublayers(model_type: str, dropped: tuple[int, ...]) -> None:
    model, family = deep(model_type), FAMILIES[model_type]
    whole = output(model)
    examples = example_masks(family.groups(model))
    for masks in (NOTHING, examples["ragged"], examples["nothing"]):
        smaller = assert_skipped_equals_dropped(model, family, masks, tiny_batch(**RAGGED), dropped)
        assert not torch.allclose(output(smaller), whole, atol=1e-3), "the layers do not matter: nothing is shown"


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_to_ten_digits_in_float64(model_type: str) -> None:
    model, family = deep(model_type).double(), FAMILIES[model_type]
    assert_skipped_equals_dropped(model, family, ragged(model, model_type), tiny_batch(**RAGGED), (1,))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_under_every_attention(attention: str) -> None:
    model = deep(attention=attention)
    assert_skipped_equals_dropped(model, Bert(), ragged(model), tiny_batch(**RAGGED), (0, 2))


def test_layers_are_skipped_only_inside_the_block() -> None:
    model = deep()
    before = output(model)
    with skipped(model, Bert().groups(model), (1,)):
        assert not torch.equal(output(model), before)
    assert torch.equal(output(model), before)


def test_layers_that_stay_are_the_same_moved_down_and_renumbered() -> None:
    model: Any = deep()
    left: Any = drop(model, 0, 2)
    assert len(left.bert.encoder.layer) == left.config.num_hidden_layers == 2
    for now, before in ((0, 1), (1, 3)):
        layer = left.bert.encoder.layer[now]
        for name, parameter in layer.named_parameters():
            assert torch.equal(parameter, model.bert.encoder.layer[before].get_parameter(name)), name
        assert layer.attention.self.layer_idx in (None, now)
    assert [layer.attention.self.layer_idx for layer in model.bert.encoder.layer] in ([0, 1, 2, 3], [None] * 4)
    assert model.config.num_hidden_layers == 4
    assert [group.index for group in Bert().groups(left)] == [0, 0, 1, 1]


def test_distilberts_own_count_follows() -> None:
    left: Any = drop(deep("distilbert"), 1, model_type="distilbert")
    assert left.config.n_layers == left.config.num_hidden_layers == left.distilbert.transformer.n_layers == 3


def test_parameters_and_macs_are_those_of_the_layers_left() -> None:
    model: Any = deep()
    left = drop(model, 1, 2)
    assert parameters(model) - parameters(left) == sum(parameters(model.bert.encoder.layer[i]) for i in (1, 2))
    macs = [encoder_macs(one, Bert().groups(one), 9.5) for one in (left, model)]
    assert macs[0] == macs[1] / 2


def test_weights_are_named_by_the_model_that_came_in() -> None:
    model, name = deep(), "bert.encoder.layer.3.output.dense.weight"
    weight = torch.randn(32, 48)
    left = shrink(model, Bert(), NOTHING, {name: weight}, dropped_layers=(0, 1))
    assert torch.equal(left.get_parameter("bert.encoder.layer.1.output.dense.weight"), weight)


@pytest.mark.parametrize(
    ("dropped", "said"),
    [
        ((0, 1, 2, 3), "expected at least one of 4 layers to stay"),
        ((1, 4), "dropped layer 4: the model has layers 0 to 3"),
        ((-1,), "dropped layer -1: the model has layers 0 to 3"),
    ],
)
def test_what_cannot_be_dropped_is_refused(dropped: tuple[int, ...], said: str) -> None:
    model = deep()
    with pytest.raises(CompressorError, match=said):
        drop(model, *dropped)
    with pytest.raises(CompressorError, match=said), skipped(model, Bert().groups(model), dropped):
        pass


def test_layers_outside_a_list_are_refused() -> None:
    model: Any = deep()
    encoder = model.bert.encoder
    encoder.layer = nn.Sequential(*encoder.layer)
    with pytest.raises(CompressorError, match=r"encoder\.layer: expected a ModuleList of layers, found Sequential"):
        drop(model, 0)


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize(
    ("head", "auto"),
    [
        ("sequence-classification", AutoModelForSequenceClassification),
        ("question-answering", AutoModelForQuestionAnswering),
        ("feature-extraction", AutoModel),
    ],
)
def test_a_model_that_only_lost_layers_is_a_plain_checkpoint(
    tmp_path: Path, model_type: str, head: Any, auto: Any
) -> None:
    model = deep(model_type, head=head, num_labels=None if head == "feature-extraction" else 2)
    left = drop(model, 0, 2, model_type=model_type)
    checkpoint.save(left, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["kept_layers"] == [1, 3]
    assert "pruned_shapes" not in config
    plain, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[keys] for keys in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for loaded in (plain.eval(), checkpoint.load(tmp_path, FAMILIES)):
        assert torch.equal(output(loaded), output(left))


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_model_that_lost_layers_and_units_comes_back_exactly(tmp_path: Path, model_type: str) -> None:
    model = deep(model_type)
    left = drop(model, 1, masks=ragged(model, model_type), model_type=model_type)
    checkpoint.save(left, tmp_path)
    loaded: Any = checkpoint.load(tmp_path, FAMILIES)
    assert torch.equal(output(loaded), output(left))
    assert loaded.config.kept_layers == [0, 2, 3]
    assert loaded.config.pruned_shapes["heads"] == [2, 0, 2]
    assert loaded.config.pruned_shapes["ffn_neurons"] == [0, 7, 0]


@pytest.mark.parametrize("ids", [[0], [0, 1, 2, 3], [2, 0, 1], [0, 0, 1], [0, 1, -1], [0, 1, "2"], 3])
def test_a_field_that_does_not_fit_is_refused(tmp_path: Path, ids: Any) -> None:
    checkpoint.save(drop(deep(), 1), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"kept_layers": ids}))
    with pytest.raises(InputError, match=r"config.json: kept_layers: expected 3 ascending layer numbers"):
        checkpoint.load(tmp_path, FAMILIES)


def test_nothing_dropped_writes_nothing() -> None:
    assert not hasattr(drop(deep()).config, "kept_layers")


@pytest.mark.parametrize("model_type", ["bert", "distilbert"])
def test_repeated_prunings_compose_to_ids_of_the_dense_model(model_type: str) -> None:
    model, family = deep(model_type), FAMILIES[model_type]
    once = drop(model, 1, model_type=model_type)
    names = [group.name for group in family.groups(once)]
    masks = Masks({names[3]: torch.arange(48) > 39, names[4]: torch.arange(4) != 2})  # dense layers 2 and 3
    twice = drop(once, masks=masks, model_type=model_type)
    thrice = drop(twice, 0, model_type=model_type)
    assert thrice.config.kept_layers == [2, 3]
    assert thrice.config.pruned_shapes["kept_heads"] == [[0, 1, 2, 3], [0, 1, 3]]
    assert thrice.config.pruned_shapes["kept_ffn_neurons"] == [list(range(40, 48)), list(range(48))]
    dense = [group.name for group in family.groups(model)]
    at_once = Masks({dense[5]: masks.keep[names[3]], dense[6]: masks.keep[names[4]]})
    whole = drop(model, 0, 1, masks=at_once, model_type=model_type)
    assert whole.config.to_dict() == thrice.config.to_dict()
    assert torch.equal(output(whole), output(thrice))


def test_units_of_a_dropped_layer_are_gone_and_others_are_found_where_they_moved() -> None:
    model = deep()
    groups = Bert().groups(model)
    masks = ragged(model)
    left = drop(model, 1, masks=masks)
    ids = shapes.kept_ids(left.config, groups, shapes.layer_ids(model.config, groups))
    for group in groups:
        expected = [] if group.index == 1 else masks.keep[group.name].nonzero().flatten().tolist()
        assert ids[group.name] == expected, group.name


def test_masks_of_dropped_layers_do_not_call_a_model_pruned_in_width() -> None:
    model = deep()
    left = drop(model, 1, masks=Masks({"encoder.layer.1.ffn": torch.arange(48) < 5}))
    assert not hasattr(left.config, "pruned_shapes")


def test_gradients_reach_every_layer_that_is_left() -> None:
    model = deep()
    left = drop(model, 0, 3, masks=ragged(model))
    raw_output(left, tiny_batch(labels=False)).square().sum().backward()
    assert [name for name, parameter in left.named_parameters() if parameter.grad is None] == []


def test_masked_and_skipped_go_together() -> None:
    model = deep()
    groups, masks = Bert().groups(model), ragged(model)
    with masked(model, groups, masks.keep), skipped(model, groups, (0, 3)):
        expected = output(model)
    torch.testing.assert_close(output(drop(model, 0, 3, masks=masks)), expected, rtol=0, atol=1e-5)
