from __future__ import annotations

import itertools

import pytest
import torch

from compressor.model import Blocks, Masks, WeightFilter, filtered_weights, shrink
from compressor.model.outputs import raw_output
from compressor.prune import Search, find_orders, kept_score, reordered
from compressor.prune.permutation import better_order
from compressor.testing import tiny_batch, tiny_model
from tests.plugins.sessions import FAMILIES

TWO_OF_FOUR = Blocks(1, 4, 2)


def test_an_order_of_eight_columns_is_the_best_there_is():
    scores = torch.rand(5, 8, generator=torch.Generator().manual_seed(0)) ** 4

    def kept(order: tuple[int, ...]) -> float:
        return kept_score(scores[:, list(order)], TWO_OF_FOUR)

    halves = [half for half in itertools.combinations(range(8), 4) if 0 in half]
    best = max(kept((*half, *(set(range(8)) - set(half)))) for half in halves)
    found = better_order(scores, TWO_OF_FOUR, Search(rounds=20))
    assert sorted(found.tolist()) == list(range(8))
    assert kept(tuple(range(8))) < kept(tuple(found.tolist())) <= best * (1 + 1e-6)
    assert kept(tuple(found.tolist())) > 0.98 * best


@pytest.mark.parametrize("columns", [4, 12, 64])
@pytest.mark.parametrize("blocks", [TWO_OF_FOUR, Blocks(1, 4, 3)], ids=["2:4", "keep 1 of 4"])
def test_an_order_never_keeps_less(columns: int, blocks: Blocks):
    scores = torch.rand(6, columns, generator=torch.Generator().manual_seed(columns))
    found = better_order(scores, blocks, Search(rounds=5))
    assert sorted(found.tolist()) == list(range(columns))
    assert kept_score(scores[:, found], blocks) >= kept_score(scores, blocks) * (1 - 1e-9)


@pytest.mark.parametrize("model_type", list(FAMILIES))
def test_a_reordered_model_computes_the_same_and_keeps_more(model_type: str):
    model, family = tiny_model(model_type), FAMILIES[model_type]
    groups = family.groups(model)
    weights = filtered_weights(model, WeightFilter())
    scores = {name: weight.detach().abs() for name, weight in weights.items()}
    orders = find_orders(groups, scores, dict.fromkeys(weights, TWO_OF_FOUR), Search())
    assert orders.keys() == {group.name for group in groups}
    for group in groups:
        if group.kind == "heads":  # coordinates stay in their head
            assert torch.equal(orders[group.name] // group.width, torch.arange(32) // group.width)
    other = shrink(model, family, Masks({}), reordered(dict(model.named_parameters()), groups, orders))
    batch = tiny_batch(labels=False)
    with torch.no_grad():
        torch.testing.assert_close(raw_output(other, batch), raw_output(model, batch), rtol=0, atol=1e-5)
    for group in groups:
        name = f"{group.consumer.module}.weight"
        assert not torch.equal(other.get_parameter(name), model.get_parameter(name))
        assert kept_score(other.get_parameter(name).abs(), TWO_OF_FOUR) > kept_score(scores[name], TWO_OF_FOUR)


def test_runs_that_cross_heads_and_other_patterns_stay():
    model, family = tiny_model(num_attention_heads=16), FAMILIES["bert"]  # heads of 2
    groups = family.groups(model)
    scores = {name: weight.detach().abs() for name, weight in filtered_weights(model, WeightFilter()).items()}
    assert {
        name.split(".")[-1] for name in find_orders(groups, scores, dict.fromkeys(scores, TWO_OF_FOUR), Search())
    } == {"ffn"}
    assert find_orders(groups, scores, dict.fromkeys(scores, Blocks(4, 1, 4)), Search()) == {}
