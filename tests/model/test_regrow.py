from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressor.model import Masks, shrink
from compressor.model.regrow import full_weights
from compressor.testing import example_masks, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.distilbert import DistilBert

FAMILIES: dict[str, Any] = {"bert": Bert(), "distilbert": DistilBert()}
KINDS = ("ragged", "one head", "one neuron", "no heads", "no neurons", "nothing")
EVERY_FAMILY = pytest.mark.parametrize("model_type", FAMILIES)


def prunable(model: nn.Module, family: Any) -> list[str]:
    """Return the names of the parameters of the producers and consumers that a model has."""
    modules = {piece.module for group in family.groups(model) for piece in (*group.producers, group.consumer)}
    return [name for name, _ in model.named_parameters() if name.rpartition(".")[0] in modules]


def change(model: nn.Module, names: list[str]) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in names:
            parameter = model.get_parameter(name)
            parameter += torch.randn(parameter.shape, generator=generator)


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    states = found.state_dict(), expected.state_dict()
    assert states[0].keys() == states[1].keys()
    assert [name for name, tensor in states[1].items() if not torch.equal(states[0][name], tensor)] == []


@EVERY_FAMILY
@pytest.mark.parametrize("kind", KINDS)
def test_shrinking_the_full_weights_gives_the_changed_model_bit_for_bit(model_type: str, kind: str) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    groups = family.groups(model)
    masks = example_masks(groups)[kind]
    smaller = shrink(model, family, masks)
    names = prunable(smaller, family)
    assert names
    change(smaller, names)
    weights = full_weights(model, groups, smaller, masks.keep)
    assert set(weights) == set(names)
    assert_same(shrink(model, family, masks, weights), smaller)


@EVERY_FAMILY
def test_what_is_removed_keeps_its_own_values(model_type: str) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    group = family.groups(model)[1]
    keep = torch.arange(group.units) % 3 > 0
    smaller = shrink(model, family, Masks({group.name: keep}))
    change(smaller, prunable(smaller, family))
    weights = full_weights(model, [group], smaller, {group.name: keep})
    for name, dim in ((group.producers[0].module, 0), (group.consumer.module, 1)):
        gone = (~keep).nonzero().flatten()
        before = model.get_parameter(f"{name}.weight").index_select(dim, gone)
        assert torch.equal(weights[f"{name}.weight"].index_select(dim, gone), before)
        assert not torch.equal(weights[f"{name}.weight"], model.get_parameter(f"{name}.weight"))


@EVERY_FAMILY
@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_changed_is_left_out(model_type: str, kind: str) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    groups = family.groups(model)
    masks = example_masks(groups)[kind]
    smaller = shrink(model, family, masks)
    assert full_weights(model, groups, smaller, masks.keep) == {}
    name = f"{groups[3].consumer.module}.bias"
    change(smaller, [name])
    assert set(full_weights(model, groups, smaller, masks.keep)) == {name}


@EVERY_FAMILY
def test_groups_without_a_mask_are_whole(model_type: str) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    groups = family.groups(model)
    keep = {groups[0].name: torch.arange(4) != 2}
    smaller = shrink(model, family, Masks(keep))
    change(smaller, prunable(smaller, family))
    assert_same(shrink(model, family, Masks(keep), full_weights(model, groups, smaller, keep)), smaller)


@EVERY_FAMILY
def test_a_model_that_was_pruned_before_is_given_back_too(model_type: str) -> None:
    family = FAMILIES[model_type]
    dense = tiny_model(model_type)
    model = shrink(dense, family, example_masks(family.groups(dense))["ragged"])
    groups = family.groups(model)
    assert not all(group.units for group in groups)
    masks = Masks({group.name: torch.arange(group.units) > 0 for group in groups})
    smaller = shrink(model, family, masks)
    change(
        smaller,
        [name for group in family.groups(smaller) if group.units for name in [f"{group.consumer.module}.weight"]],
    )
    assert_same(shrink(model, family, masks, full_weights(model, groups, smaller, masks.keep)), smaller)


@EVERY_FAMILY
def test_the_models_stay_as_they_are(model_type: str) -> None:
    model, family = tiny_model(model_type), FAMILIES[model_type]
    groups = family.groups(model)
    masks = example_masks(groups)["ragged"]
    smaller = shrink(model, family, masks)
    change(smaller, prunable(smaller, family))
    before = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each in (model, smaller)]
    weights = full_weights(model, groups, smaller, masks.keep)
    for weight in weights.values():
        weight.add_(1)
    for each, state in zip((model, smaller), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in each.state_dict().items())
