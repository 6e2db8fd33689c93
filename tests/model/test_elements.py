from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from compressor.errors import CompressorError
from compressor.model import (
    Masks,
    WeightFilter,
    apply_masks,
    filtered_weights,
    removed_elements,
    shrink,
    split_masks,
    zero_masks,
)
from compressor.model.elements import shrunk_masks
from compressor.plugin import ModelFamily
from compressor.prune import Selection, cut_weights, select_masks
from compressor.testing import example_masks, tiny_model
from compressor_plugins.families.bert import Bert
from compressor_plugins.patterns.block import Block
from compressor_plugins.patterns.n_m import NM

FAMILY: ModelFamily = Bert()
NAME = "bert.encoder.layer.0.output.dense.weight"


def random_masks(model: torch.nn.Module) -> Masks:
    generator = torch.Generator().manual_seed(0)
    weights = filtered_weights(model, WeightFilter())
    return Masks({name: torch.rand(weight.shape, generator=generator) < 0.7 for name, weight in weights.items()})


def test_masks_of_units_and_of_weights_are_told_apart():
    model = tiny_model()
    both = {"encoder.layer.0.ffn": torch.ones(48, dtype=torch.bool), NAME: torch.ones(32, 48, dtype=torch.bool)}
    units, elements = split_masks(model, FAMILY.groups(model), Masks(both))
    assert list(units.keep) == ["encoder.layer.0.ffn"]
    assert list(elements.keep) == [NAME]


def test_a_mask_of_nothing_is_refused():
    model = tiny_model()
    with pytest.raises(CompressorError, match=r"no such group or parameter; did you mean 'bert\.encoder"):
        split_masks(model, FAMILY.groups(model), Masks({NAME + "s": torch.ones(32, 48, dtype=torch.bool)}))
    with pytest.raises(CompressorError, match=r"expected shape \(32, 48\), got \(48, 32\)"):
        split_masks(model, FAMILY.groups(model), Masks({NAME: torch.ones(48, 32, dtype=torch.bool)}))


def test_zeros_have_no_sign():
    model = tiny_model()
    apply_masks(model, Masks({NAME: torch.zeros(32, 48, dtype=torch.bool)}))
    assert not torch.signbit(model.get_parameter(NAME)).any()


@pytest.mark.parametrize("which", ["ragged", "one head", "nothing"])
@pytest.mark.parametrize("dropped", [(), (1,)])
def test_masks_of_weights_follow_their_weights_through_surgery(which: str, dropped: tuple[int, ...]):
    model = tiny_model()
    elements, units = random_masks(model), example_masks(FAMILY.groups(model))[which]
    with torch.no_grad():  # no weight is zero by itself
        for name in elements.keep:
            model.get_parameter(name).abs_().add_(0.1)
    apply_masks(model, elements)
    smaller = shrink(model, FAMILY, units, dropped_layers=dropped)
    masks = shrunk_masks(model, FAMILY, elements, units, dropped_layers=dropped)
    left = filtered_weights(smaller, WeightFilter())
    assert masks.keep.keys() == left.keys()
    for name, weight in left.items():
        assert torch.equal(masks.keep[name], weight != 0), name


def test_pruned_zeros_are_found_again():
    model = tiny_model()
    masks = random_masks(model)
    apply_masks(model, masks)
    assert zero_masks(filtered_weights(model, WeightFilter())) == masks


def bert_mini() -> torch.nn.Module:
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    config = AutoConfig.for_model("bert", vocab_size=30522, num_labels=2, **sizes)
    model: torch.nn.Module = AutoModelForSequenceClassification.from_config(config)
    return model


@pytest.mark.parametrize(
    ("pattern", "sparsity", "excluded", "ratio"),
    [
        (Block(rows=4, columns=1), 0.9, ["pooler"], 0.8815),
        (NM(), 0.5, ["pooler"], 0.4897),
        (NM(), 0.5, ["pooler", r"layer\.3\.attention\.output\.dense"], 0.4795),
    ],
)
def test_the_seeds_ratios_come_out(pattern: Block | NM, sparsity: float, excluded: list[str], ratio: float):
    model = bert_mini()
    weights = filtered_weights(model, WeightFilter(excluded_op_names=excluded))
    layouts, skipped = cut_weights(weights, pattern.blocks)
    assert not skipped
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    figures = removed_elements(model, select_masks(scores, layouts, sparsity, Selection(maximum=0.98)))
    assert figures["linear_and_conv"]["of"] == 3_211_776
    assert round(figures["linear_and_conv"]["ratio"], 4) == ratio
    assert figures["pruned_layers"]["ratio"] == pytest.approx(sparsity, abs=4 / 3_145_728)
    if sparsity == 0.9:
        assert figures["all_parameters"]["of"] == 11_171_074
        assert abs(figures["all_parameters"]["removed"] - 2_831_155) <= 2
        assert round(figures["all_parameters"]["ratio"], 4) == 0.2534


def test_no_masks_have_ratios_of_nothing():
    assert removed_elements(tiny_model(), Masks({}))["pruned_layers"] == {"removed": 0, "of": 0, "ratio": 0.0}
