from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from compressor.errors import InputError
from compressor.model import WeightFilter, filtered_weights
from compressor.model.weights import divided_weights, head_name
from compressor.testing import tiny_model


def chosen(model: nn.Module, **options: Any) -> list[str]:
    return [name.removesuffix(".weight") for name in filtered_weights(model, WeightFilter(**options))]


@pytest.mark.parametrize(
    ("model_type", "head"),
    [
        ("bert", "classifier"),
        ("distilbert", "classifier"),
        ("roberta", "classifier.out_proj"),
        ("electra", "classifier.out_proj"),
    ],
)
def test_the_head_is_the_last_linear_and_stays_by_its_exact_name(model_type: str, head: str):
    model = tiny_model(model_type)
    assert head_name(model) == head
    assert head not in chosen(model)
    assert head in chosen(model, include_head=True)


def test_the_heads_name_says_nothing_of_the_layer_before_it():
    assert "pre_classifier" in chosen(tiny_model("distilbert"))


def test_a_bare_encoder_has_no_head():
    assert head_name(tiny_model(num_labels=None)) is None


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "electra"])
def test_embeddings_are_never_chosen(model_type: str):
    names = chosen(tiny_model(model_type), pruning_op_types=("Linear", "Embedding"))
    assert names
    assert not [name for name in names if "embeddings" in name]


def test_names_are_searched_and_exclusions_win():
    model = tiny_model()
    found = chosen(model, op_names=[".*output", ".*intermediate"], excluded_op_names=[r"layer\.0", "attention"])
    assert found == [f"bert.encoder.layer.{n}.{part}.dense" for n in (1, 2) for part in ("intermediate", "output")]


def test_another_kind_of_layer_is_not_chosen():
    assert chosen(tiny_model(), pruning_op_types=["Conv"]) == []


def test_a_layer_belongs_to_one_filter():
    model = tiny_model()
    ffn, attention = WeightFilter(op_names=[".*output", ".*intermediate"]), WeightFilter(op_names=["attention"])
    with pytest.raises(
        InputError, match=r"blocks 0 and 1 both mean bert\.encoder\.layer\.0\.attention\.output\.dense \(3 layers"
    ):
        divided_weights(model, [ffn, attention])
    parts = divided_weights(model, [ffn, WeightFilter(op_names=["query", "key", "value"])])
    assert [len(part) for part in parts] == [9, 9]
