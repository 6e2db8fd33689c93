"""The relation-preserving objective and the sampler of head masks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor_plugins.methods._relations import relation_loss, relations, sampled_gates


def vectors(rows: int = 8, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(now: Tensor, full: Tensor) -> float:
    """Return the objective of pairs, written out."""

    def similarities(v: Tensor) -> Tensor:
        v = v - v.mean(dim=0)
        v = v / v.norm(dim=1, keepdim=True)
        return 10 * v @ v.T

    total, count = 0.0, 0
    for before, after in zip(similarities(full), similarities(now), strict=True):
        for m in range(len(full) // 2):
            p, q = (row[2 * m : 2 * m + 2].softmax(dim=0) for row in (before, after))
            total += float((p * (p / q).log()).sum())
            count += 1
    return total / count


def test_the_loss_is_that_of_the_definition():
    now, full = vectors(seed=1), vectors()
    assert float(relation_loss(now, full, pair=True)) == pytest.approx(by_hand(now, full))
    assert float(relation_loss(now, full, pair=False)) == pytest.approx(10 * by_hand(now, full))


def test_relations_are_two_way_softmaxes():
    found = relations(vectors())
    assert found.shape == (8, 4, 2)
    torch.testing.assert_close(found.exp().sum(dim=2), torch.ones(8, 4, dtype=torch.float64))


def test_without_a_change_the_loss_is_exactly_zero():
    assert float(relation_loss(vectors(), vectors(), pair=True)) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_not_negative(seed: int):
    assert float(relation_loss(vectors(seed=seed + 1), vectors(), pair=False)) > 0


def test_scaling_and_shifting_all_vectors_changes_nothing():
    now, full = vectors(seed=1), vectors()
    loss = relation_loss(now, full, pair=True)
    torch.testing.assert_close(relation_loss(3 * now, 0.1 * full, pair=True), loss)
    torch.testing.assert_close(relation_loss(now + vectors(1, seed=9), full + vectors(1, seed=8), pair=True), loss)


def test_a_permutation_that_keeps_pairs_together_changes_nothing():
    now, full = vectors(seed=1), vectors()
    order = torch.tensor([[2, 3], [6, 7], [0, 1], [4, 5]]).flatten()
    loss = relation_loss(now, full, pair=True)
    torch.testing.assert_close(relation_loss(now[order], full[order], pair=True), loss)
    apart = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7])
    assert float(relation_loss(now[apart], full[apart], pair=True)) != pytest.approx(float(loss), rel=1e-3)


def test_a_sentence_like_the_mean_of_all_gives_numbers():
    same = torch.ones(4, 3)
    assert float(relation_loss(same, same, pair=True)) == 0.0


@pytest.mark.parametrize("heads", [2, 4, 7, 12, 16])
def test_half_of_the_heads_is_drawn_and_values_are_exact(heads: int):
    generator = torch.Generator().manual_seed(0)
    scores = torch.linspace(0, 2, heads)
    for _ in range(30):
        gates = sampled_gates(scores, generator)
        assert set(gates.tolist()) <= {0.0, 1.0}
        assert float(gates.sum()) == heads // 2


def test_high_scores_are_drawn_more_often():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([sampled_gates(torch.tensor([0.0, 0.0, 2.0, 2.0]), generator) for _ in range(300)])
    assert float(drawn[:, 2:].mean()) > 0.65
    assert 0.05 < float(drawn[:, :2].mean()) < 0.35


def test_when_no_draw_names_enough_heads_fewer_stay():
    gates = sampled_gates(torch.tensor([60.0, 0.0, 0.0, 0.0]), torch.Generator().manual_seed(0))
    assert gates.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_the_gradient_goes_through_the_soft_samples():
    scores = torch.zeros(6, requires_grad=True)
    gates = sampled_gates(scores, torch.Generator().manual_seed(0))
    (gates * torch.arange(6.0)).sum().backward()
    assert scores.grad is not None
    assert float(scores.grad.sum()) == pytest.approx(0, abs=1e-6)
    assert float(scores.grad[5]) > 0 > float(scores.grad[0])


def test_draws_are_those_of_the_generator():
    one, other = (sampled_gates(torch.zeros(8), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(one, other)
