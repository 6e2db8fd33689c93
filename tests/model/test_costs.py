from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compressor.model import Masks, shrink
from compressor.model.costs import encoder_macs, kept_macs, parameter_bytes, parameters, unit_macs, unit_prices
from compressor.model.outputs import raw_output
from compressor.testing import tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.families.deberta_v2 import DebertaV2
from compressor_plugins.families.distilbert import DistilBert
from compressor_plugins.families.modernbert import ModernBert
from compressor_plugins.families.mpnet import MPNet

FAMILIES: dict[str, Any] = {
    "bert": Bert(),
    "roberta": Bert(),
    "electra": Bert(),
    "distilbert": DistilBert(),
    "modernbert": ModernBert(),
    "mpnet": MPNet(),
}


def counted_macs(model: torch.nn.Module, layers: str, length: int) -> int:
    """Count the MACs of one sample inside the layers, as torch dispatches them."""
    batch = {"input_ids": torch.full((1, length), 7), "attention_mask": torch.ones(1, length, dtype=torch.long)}
    # A fused attention kernel would hide its products from the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        raw_output(model, batch)
    inside = [sum(ops.values()) for name, ops in counter.get_flop_counts().items() if name.endswith(layers)]
    assert len(inside) == 1
    return inside[0] // 2


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("length", [1, 9])
def test_encoder_macs_equal_what_torch_counts(model_type: str, length: int) -> None:
    model, family = tiny_model(model_type, num_hidden_layers=1), FAMILIES[model_type]
    layer = family.groups(model)[0].layer
    # transformers 4.57 makes the angles of rotary embeddings (half a head's width of them) in every layer anew.
    angles = 4 * length * any("rotary_emb" in name for name, _ in model.get_submodule(layer).named_modules())
    assert encoder_macs(model, family.groups(model), length) == counted_macs(model, layer, length) - angles


@pytest.mark.parametrize("options", [{}, {"share_att_key": False}, {"share_att_key": False, "pos_att_type": ["c2p"]}])
def test_debertas_macs_are_what_torch_counts_without_the_projections_of_positions(options: dict[str, Any]) -> None:
    """Those read no tokens: a graph computes them once for all texts."""
    model = tiny_model("deberta-v2", num_hidden_layers=1, **options).requires_grad_(requires_grad=False)
    groups = DebertaV2().groups(model)
    terms, distances, hidden = len(options.get("pos_att_type", "ab")), 2 * 8, 32
    counted = counted_macs(model, groups[0].layer, 9)
    assert encoder_macs(model, groups, 9) == counted - terms * distances * hidden * hidden


def test_kept_macs_equal_what_torch_counts_after_removal() -> None:
    model = tiny_model(num_hidden_layers=1)
    groups = Bert().groups(model)
    keep = {groups[0].name: torch.tensor([True, False, True, True]), groups[1].name: torch.arange(48) % 5 > 0}
    pruned = shrink(model, Bert(), Masks(keep))
    expected = counted_macs(pruned, groups[0].layer, 11)
    assert kept_macs(model, groups, keep, 11) == expected
    assert encoder_macs(pruned, Bert().groups(pruned), 11) == expected


def test_unit_macs_follow_the_published_cost_model_at_a_fractional_length() -> None:
    model = tiny_model()
    heads, neurons = Bert().groups(model)[:2]
    length, hidden, width = 53.24, 32, 8
    assert unit_macs(model, heads, length) == pytest.approx(4 * length * hidden * width + 2 * length**2 * width)
    assert unit_macs(model, neurons, length) == pytest.approx(2 * length * hidden)


def test_emptied_sublayers_cost_nothing_and_have_no_price() -> None:
    model = tiny_model()
    groups = Bert().groups(model)
    empty = shrink(model, Bert(), Masks({group.name: torch.zeros(group.units, dtype=torch.bool) for group in groups}))
    assert encoder_macs(empty, Bert().groups(empty), 10) == 0
    assert unit_prices(empty, Bert().groups(empty), 10) == {}


def test_groups_without_a_mask_cost_all_their_units() -> None:
    model = tiny_model()
    groups = Bert().groups(model)
    assert kept_macs(model, groups, {}, 5.5) == encoder_macs(model, groups, 5.5)


def test_shared_parameters_count_once() -> None:
    linear = torch.nn.Linear(3, 2)
    twice = torch.nn.ModuleList([linear, linear])
    assert parameters(twice) == 8
    assert parameter_bytes(twice) == 32
