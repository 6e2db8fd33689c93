from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compressor.errors import CompressorError
from compressor.model import Masks, ParamSlice, PrunableGroup, UnitKind
from compressor.prune import rearrange, search_masks, threshold_masks


def group(kind: UnitKind, index: int, units: int) -> PrunableGroup:
    piece = ParamSlice("unused", dim=1)
    return PrunableGroup(
        name=f"{index}.{kind}",
        kind=kind,
        layer=str(index),
        index=index,
        units=units,
        producers=(),
        consumer=piece,
        block="unused",
    )


def model_groups(heads: tuple[int, ...], neurons: tuple[int, ...]) -> list[PrunableGroup]:
    pairs = zip(heads, neurons, strict=True)
    return [g for i, (h, n) in enumerate(pairs) for g in (group("heads", i, h), group("ffn_neurons", i, n))]


def random_scores(groups: list[PrunableGroup], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {g.name: torch.rand(g.units, generator=generator, dtype=torch.float64) for g in groups}


def spent(groups: list[PrunableGroup], masks: Masks, prices: Mapping[UnitKind, float]) -> float:
    count = {kind: sum(int(masks.keep[g.name].sum()) for g in groups if g.kind == kind) for kind in prices}
    return count["heads"] * prices["heads"] + count["ffn_neurons"] * prices["ffn_neurons"]


def total(masks: Masks, scores: Mapping[str, Tensor]) -> float:
    return sum(float(scores[name][keep].sum()) for name, keep in masks.keep.items())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep", [0.05, 0.3, 0.5, 0.8, 1.0])
def test_search_equals_brute_force_over_all_subsets(seed: int, keep: float) -> None:
    groups = model_groups((2, 2), (4, 4))
    scores = random_scores(groups, seed)
    prices: dict[UnitKind, float] = {"heads": 2.7, "ffn_neurons": 1.0}
    budget = keep * (4 * 2.7 + 8)
    flat = torch.cat([scores[g.name] for g in groups])
    cost = torch.cat([torch.full((g.units,), prices[g.kind], dtype=torch.float64) for g in groups])
    subsets = torch.tensor(list(product([0.0, 1.0], repeat=len(flat))), dtype=torch.float64)
    best = float((subsets @ flat)[subsets @ cost <= budget].max())
    assert total(search_masks(groups, scores, prices=prices, budget=budget), scores) == pytest.approx(best, abs=1e-12)


SCORES = st.one_of(
    st.just(0.0),
    st.just(1.0),
    st.floats(0, 1e9, allow_nan=False),
    st.floats(1e-12, 1e-6, allow_nan=False),
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_search_never_exceeds_its_budget(data: st.DataObject) -> None:
    layers = data.draw(st.integers(1, 3))
    sizes = st.lists(st.integers(0, 6), min_size=layers, max_size=layers).map(tuple)
    groups = model_groups(data.draw(sizes), data.draw(sizes))
    scores = {
        g.name: torch.tensor(data.draw(st.lists(SCORES, min_size=g.units, max_size=g.units)), dtype=torch.float64)
        for g in groups
    }
    prices: dict[UnitKind, float] = {
        "heads": data.draw(st.floats(0.1, 1e7)),
        "ffn_neurons": data.draw(st.floats(0.1, 1e7)),
    }
    whole = Masks({g.name: torch.ones(g.units, dtype=torch.bool) for g in groups})
    keep = data.draw(st.floats(0.001, 1.0))
    budget = keep * spent(groups, whole, prices)
    masks = search_masks(groups, scores, prices=prices, budget=budget)
    assert spent(groups, masks, prices) <= budget
    assert {name: len(mask) for name, mask in masks.keep.items()} == {g.name: g.units for g in groups}


@pytest.mark.parametrize("length", [1.0, 11.67, 53.24, 170.0])
def test_keep_one_returns_every_unit(length: float) -> None:
    groups = model_groups((12,) * 6, (1536,) * 6)
    prices: dict[UnitKind, float] = {"heads": 4 * length * 384 * 32 + 2 * length**2 * 32, "ffn_neurons": 768 * length}
    whole = Masks({g.name: torch.ones(g.units, dtype=torch.bool) for g in groups})
    scores = {g.name: torch.zeros(g.units) for g in groups}
    assert search_masks(groups, scores, prices=prices, budget=spent(groups, whole, prices)) == whole


def test_dear_heads_that_do_not_fit_are_not_kept() -> None:
    groups = model_groups((4,), (4,))
    scores = {"0.heads": torch.full((4,), 100.0), "0.ffn_neurons": torch.full((4,), 1.0)}
    masks = search_masks(groups, scores, prices={"heads": 10.0, "ffn_neurons": 1.0}, budget=9.0)
    assert masks.keep["0.heads"].tolist() == [False] * 4
    assert masks.keep["0.ffn_neurons"].tolist() == [True] * 4


def test_a_budget_below_every_price_keeps_nothing() -> None:
    groups = model_groups((2,), (2,))
    scores = {g.name: torch.ones(g.units) for g in groups}
    masks = search_masks(groups, scores, prices={"heads": 10.0, "ffn_neurons": 5.0}, budget=4.0)
    assert not any(mask.any() for mask in masks.keep.values())


def test_equal_scores_keep_the_lower_index() -> None:
    groups = model_groups((2, 2), (0, 0))
    scores = {g.name: torch.ones(g.units) for g in groups}
    masks = search_masks(groups, scores, prices={"heads": 1.0, "ffn_neurons": 1.0}, budget=3.0)
    assert [masks.keep["0.heads"].tolist(), masks.keep["1.heads"].tolist()] == [[True, True], [True, False]]


def form(gram: np.ndarray, pruned: list[int]) -> float:
    return float(gram[np.ix_(pruned, pruned)].sum())


def naive_rearrange(gradients: np.ndarray, pruned: list[int]) -> tuple[list[int], list[float]]:
    """Exchange units one by one, recomputing every sum of gradient vectors."""
    diagonal = (gradients**2).sum(axis=0)
    members = set(pruned)
    others = sorted(set(range(gradients.shape[1])) - members, key=lambda unit: diagonal[unit])
    history = []
    for unit in others:
        members.add(unit)
        costs = {q: ((gradients[:, sorted(members - {q})].sum(axis=1)) ** 2).sum() for q in sorted(members)}
        members.remove(min(costs, key=costs.__getitem__))
        history.append(float((gradients[:, sorted(members)].sum(axis=1) ** 2).sum()))
    return sorted(members), history


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 4, 9])
def test_gram_rearrangement_equals_the_naive_loop_and_never_rises(seed: int, count: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(7, 10))
    gram = gradients.T @ gradients
    start = sorted(np.argsort(np.diag(gram))[:count].tolist())
    expected, history = naive_rearrange(gradients, start)
    assert rearrange(gram, start) == expected
    values = [form(gram, start), *history]
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(values))


@pytest.mark.parametrize("seed", range(4))
def test_repeated_rearrangement_ends_in_a_one_swap_optimum(seed: int) -> None:
    gradients = np.random.default_rng(seed).normal(size=(5, 9))
    gram = gradients.T @ gradients
    pruned: list[int] = []
    found = sorted(np.argsort(np.diag(gram))[:4].tolist())
    while found != pruned:
        pruned, found = found, rearrange(gram, found)
    swaps = [sorted({*pruned} - {out} | {new}) for out, new in product(pruned, range(9)) if new not in pruned]
    assert min(form(gram, swap) for swap in swaps) >= form(gram, pruned) - 1e-9
    assert form(gram, pruned) >= min(form(gram, list(subset)) for subset in combinations(range(9), 4)) - 1e-9


def test_rearrangement_prunes_a_pair_that_cancels() -> None:
    gradients = np.array([[0.5, 1.0, -1.0], [0.5, 0.1, 0.1]])
    assert rearrange(gradients.T @ gradients, [0, 1]) == [1, 2]


@pytest.mark.parametrize("pruned", [[], [0, 1, 2]])
def test_rearrangement_leaves_empty_and_full_sets_alone(pruned: list[int]) -> None:
    assert rearrange(np.eye(3), pruned) == pruned


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_scores_that_cannot_be_ranked_are_refused(bad: float) -> None:
    groups = model_groups((2,), (3,))
    scores = {"0.heads": torch.ones(2), "0.ffn_neurons": torch.tensor([1.0, bad, 1.0])}
    with pytest.raises(CompressorError, match=r"scores of '0\.ffn_neurons'"):
        search_masks(groups, scores, prices={"heads": 1.0, "ffn_neurons": 1.0}, budget=3.0)


def lowest_threshold(
    groups: list[PrunableGroup], scores: Mapping[str, Tensor], prices: Mapping[UnitKind, float], budget: float
) -> dict[str, Tensor]:
    """Try every score per price as the threshold, from the lowest, as K-prune's algorithm is written."""
    worth = {g.name: scores[g.name] / prices[g.kind] for g in groups}
    for threshold in [-1.0, *sorted(float(value) for values in worth.values() for value in values)]:
        keep = {name: values > threshold for name, values in worth.items()}
        if spent(groups, Masks(keep), prices) <= budget:
            return keep
    raise AssertionError


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep", [0.02, 0.3, 0.5, 0.8, 1.0])
def test_the_threshold_search_equals_trying_every_threshold(seed: int, keep: float) -> None:
    groups = model_groups((3, 0, 2), (6, 5, 0))
    scores = random_scores(groups, seed)
    prices: dict[UnitKind, float] = {"heads": 3.3, "ffn_neurons": 1.0}
    budget = keep * (5 * 3.3 + 11)
    found = threshold_masks(groups, scores, prices=prices, budget=budget)
    assert found == Masks(lowest_threshold(groups, scores, prices, budget))
    assert spent(groups, found, prices) <= budget


@pytest.mark.parametrize("adversary", [0.0, 1.0, 1e9])
@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 0.9, 1.0])
def test_the_threshold_never_exceeds_the_budget_and_ties_are_cut(adversary: float, keep: float) -> None:
    groups = model_groups((4, 4), (8, 8))
    scores = {g.name: torch.full((g.units,), adversary if g.kind == "heads" else 1.0) for g in groups}
    prices: dict[UnitKind, float] = {"heads": 7.0, "ffn_neurons": 1.0}
    budget = keep * (8 * 7.0 + 16)
    found = threshold_masks(groups, scores, prices=prices, budget=budget)
    assert budget - 7.0 < spent(groups, found, prices) <= budget
