from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from compressor.errors import CompressorError
from compressor.prune.thresholds import Layer, lowest_blocks, lowest_per_row, ordered


def layer(scores: Tensor, *, price: int = 1, least: int = 0, most: int | None = None) -> Layer:
    return Layer(scores, price, least, len(scores) if most is None else most)


def drawn(*sizes: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for size in sizes]


def test_the_order_of_floats_is_that_of_their_integers():
    values = torch.tensor([-math.inf, -3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 2.0, 2.0000002, 3e38, math.inf])
    keys = ordered(values)
    assert (keys[:-1] <= keys[1:]).all()
    assert keys[4] == keys[5]
    assert len(keys.unique()) == len(values) - 1


def test_what_is_no_number_has_no_order():
    with pytest.raises(CompressorError, match="got NaN"):
        ordered(torch.tensor([1.0, math.nan]))


@pytest.mark.parametrize("budget", [0, 1, 7, 30, 59, 60])
def test_the_lowest_of_all_go_exactly(budget: int):
    parts = drawn(10, 30, 20)
    removed = lowest_blocks([layer(part) for part in parts], budget)
    limit = torch.cat(parts).sort().values[budget - 1] if budget else -math.inf
    assert [gone.tolist() for gone in removed] == [(part <= limit).tolist() for part in parts]


def test_ties_go_in_the_order_of_layers_and_indices():
    removed = lowest_blocks([layer(torch.zeros(4)), layer(torch.tensor([0.0, -1.0, 0.0]))], 4)
    assert [gone.tolist() for gone in removed] == [[True, True, True, False], [False, True, False]]


@pytest.mark.parametrize("seed", range(5))
def test_clamped_totals_are_exact(seed: int):
    """Every way to share the budget is tried: the sum of removed scores is the least that the bounds allow."""
    parts = drawn(5, 6, 4, seed=seed)
    bounds = [(1, 3), (0, 2), (2, 4)]
    layers = [layer(part, least=least, most=most) for part, (least, most) in zip(parts, bounds, strict=True)]
    removed = lowest_blocks(layers, 7)
    counts = [int(gone.sum()) for gone in removed]
    assert sum(counts) == 7
    assert all(least <= count <= most for count, (least, most) in zip(counts, bounds, strict=True))

    def total(shares: tuple[int, ...]) -> float:
        return sum(float(part.sort().values[:share].sum()) for part, share in zip(parts, shares, strict=True))

    allowed = [s for s in itertools.product(*(range(low, high + 1) for low, high in bounds)) if sum(s) == 7]
    assert total(tuple(counts)) == pytest.approx(min(total(shares) for shares in allowed))


@pytest.mark.parametrize("budget", [0, 10, 37, 91, 200])
def test_unequal_prices_come_within_half_a_block(budget: int):
    parts = drawn(10, 20)
    layers = [layer(parts[0], price=8), layer(parts[1], price=6)]
    removed = lowest_blocks(layers, budget)
    assert abs(sum(one.price * int(gone.sum()) for one, gone in zip(layers, removed, strict=True)) - budget) <= 4


@pytest.mark.parametrize(("budget", "counts"), [(0, [2, 0]), (100, [3, 5])])
def test_bounds_hold_where_the_budget_does_not(budget: int, counts: list[int]):
    layers = [
        layer(part, least=least, most=most) for part, least, most in zip(drawn(6, 5), (2, 0), (3, 5), strict=True)
    ]
    assert [int(gone.sum()) for gone in lowest_blocks(layers, budget)] == counts


def test_every_row_loses_the_same():
    scores = torch.tensor([[3.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    assert lowest_per_row(scores, 0.5).tolist() == [[False, True, True, False], [True, True, False, False]]
