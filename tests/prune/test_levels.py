from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import CompressorError
from compressor.model import UnitKind
from compressor.prune.allocate import search_masks, threshold_masks
from compressor.prune.levels import Levels, choose_levels, level_masks, levels_of
from tests.prune.test_allocate import group, model_groups, random_scores, spent, total


def random_tables(seed: int, sublayers: int = 5, levels: int = 4) -> list[Levels]:
    """Draw prices and losses that know no order: neither convex nor monotone."""
    draw = np.random.default_rng(seed)
    return [Levels(np.arange(levels), draw.random(levels), draw.random(levels)) for _ in range(sublayers)]


def cost(tables: list[Levels], chosen: list[int], column: str) -> float:
    return float(sum(getattr(table, column)[level] for table, level in zip(tables, chosen, strict=True)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("budget", [1.0, 1.7, 2.5, 4.0])
def test_the_dynamic_program_equals_brute_force(seed: int, budget: float) -> None:
    tables = random_tables(seed)
    every = [list(levels) for levels in product(range(4), repeat=5)]
    allowed = [levels for levels in every if cost(tables, levels, "prices") <= budget]
    if not allowed:
        with pytest.raises(CompressorError, match="cheapest levels cost"):
            choose_levels(tables, budget)
        return
    chosen = choose_levels(tables, budget)
    assert cost(tables, chosen, "prices") <= budget
    best = min(cost(tables, levels, "losses") for levels in allowed)
    assert cost(tables, chosen, "losses") == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_a_thinned_front_stays_within_the_budget_and_near_the_optimum(seed: int) -> None:
    tables = random_tables(seed, sublayers=8, levels=12)
    exact, thinned = choose_levels(tables, 2.0), choose_levels(tables, 2.0, points=200)
    assert cost(tables, thinned, "prices") <= 2.0
    assert cost(tables, exact, "losses") <= cost(tables, thinned, "losses") <= cost(tables, exact, "losses") + 0.15


@given(
    prices=st.lists(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=4), min_size=1, max_size=5),
    share=st.floats(0.0, 1.0),
)
@settings(max_examples=60, deadline=None)
def test_no_choice_costs_more_than_the_budget(prices: list[list[float]], share: float) -> None:
    tables = [Levels(np.arange(len(p)), np.array(p), -np.array(p)) for p in prices]
    low, high = (sum(pick(p) for p in prices) for pick in (min, max))
    budget = low + share * (high - low)
    try:
        chosen = choose_levels(tables, budget)
    except CompressorError:  # the cheapest exceed the budget by rounding alone
        assert share < 1e-9
        return
    assert cost(tables, chosen, "prices") <= budget * (1 + 2e-9)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep", [0.1, 0.4, 0.7, 1.0])
def test_with_linear_prices_it_equals_the_search_and_beats_the_threshold(seed: int, keep: float) -> None:
    groups = model_groups((3, 2), (6, 5))
    scores = random_scores(groups, seed)
    prices: dict[UnitKind, float] = {"heads": 2.7, "ffn_neurons": 1.0}
    budget = keep * (5 * 2.7 + 11)
    found = level_masks(
        groups,
        scores,
        counts={g.name: np.arange(g.units + 1) for g in groups},
        prices=lambda g, counts: prices[g.kind] * counts,
        budget=budget,
    )
    exact = search_masks(groups, scores, prices=prices, budget=budget)
    greedy = threshold_masks(groups, scores, prices=prices, budget=budget)
    assert total(found, scores) == pytest.approx(total(exact, scores), abs=1e-12)
    assert total(found, scores) >= total(greedy, scores) - 1e-12
    assert spent(groups, found, prices) <= budget * (1 + 2e-9)


@pytest.mark.parametrize("seed", range(10))
def test_a_budget_that_a_choice_meets_exactly_is_enough_for_it(seed: int) -> None:
    draw = np.random.default_rng(seed)
    layer = [np.sort(draw.random(9)) for _ in range(2)]
    tables = [Levels(np.arange(9), prices, -prices) for prices in layer * 6]
    whole = 6 * float(layer[0][-1] + layer[1][-1])  # not the order in which the program adds
    assert choose_levels(tables, whole) == [8] * 12


def test_a_width_that_is_slower_than_a_larger_one_is_avoided() -> None:
    wide = group("ffn_neurons", 0, 4)
    scores = {wide.name: torch.tensor([4.0, 3.0, 2.0, 1.0])}
    slow_at_three = np.array([0.0, 1.0, 2.0, 9.0, 4.0])
    masks = level_masks(
        [wide], scores, counts={wide.name: np.arange(5)}, prices=lambda _, counts: slow_at_three[counts], budget=5.0
    )
    assert masks.keep[wide.name].all()


def test_emptied_groups_take_no_part_and_a_sublayer_may_be_emptied() -> None:
    groups = [group("heads", 0, 0), group("heads", 1, 2), group("ffn_neurons", 1, 2)]
    scores = {groups[0].name: torch.zeros(0), groups[1].name: torch.ones(2), groups[2].name: 9 * torch.ones(2)}
    masks = level_masks(
        groups, scores, counts={g.name: np.arange(g.units + 1) for g in groups}, prices=lambda _, c: c * 1.0, budget=2.0
    )
    assert [int(mask.sum()) for mask in masks.keep.values()] == [0, 0, 2]


def test_levels_lose_what_they_drop() -> None:
    levels = levels_of(np.array([3.0, 1.0, 2.0]), np.array([3, 1, 0]), np.array([3.0, 1.0, 0.0]))
    assert levels.losses.tolist() == [0.0, 3.0, 6.0]


def test_tables_that_are_no_tables_are_refused() -> None:
    with pytest.raises(CompressorError, match="one length"):
        Levels(np.arange(2), np.zeros(3), np.zeros(2))
    with pytest.raises(CompressorError, match="finite"):
        Levels(np.arange(1), np.array([np.nan]), np.zeros(1))
