from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.plugin import CriterionRun, Registry
from compressor_plugins.criteria.snip import SnipMomentum

REGISTRY = Registry.load()
NAMES = REGISTRY.names("criterion")
GRADIENTS = (1.0, -3.0, 0.0)


def started(name: str) -> CriterionRun:
    criterion: Any = REGISTRY.get("criterion", name)()
    run: CriterionRun = criterion.start({"w": (1, 1)})
    return run


def observe(run: CriterionRun, weight: float, gradient: float, activation: float = 2.0) -> float:
    run.observe(
        weights={"w": torch.full((1, 1), weight)},
        gradients={"w": torch.full((1, 1), gradient)},
        activations={"w": torch.full((3, 1), activation)},
    )
    return float(run.scores()["w"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("magnitude", [2, 2, 2]),
        ("gradient", [1, 3, 0]),
        ("snip", [2, 6, 0]),
        ("snip_momentum", [2, 7.8, 7.02]),
        ("taylor", [4, 40, 40]),
        ("movement", [-2, 4, 4]),
        ("wanda", [2 * 12**0.5, 2 * 24**0.5, 2 * 36**0.5]),
    ],
)
def test_scores_are_the_published_ones(name: str, expected: list[float]):
    run = started(name)
    assert [observe(run, 2.0, gradient) for gradient in GRADIENTS] == pytest.approx(expected)


def test_every_criterion_is_tested_above():
    assert set(NAMES) == {"magnitude", "gradient", "snip", "snip_momentum", "taylor", "movement", "wanda"}


def test_magnitude_has_no_sign():
    assert observe(started("magnitude"), -3.0, 0.0) == 3.0


def test_momentum_and_scale_are_options():
    run = SnipMomentum(momentum=0.5, scale=2.0).start({"w": (1, 1)})
    assert [observe(run, 2.0, gradient) for gradient in GRADIENTS] == [4, 14, 7]


def test_a_pruned_weights_score_only_decays():
    run = started("snip_momentum")
    scores = [observe(run, weight, 1.0) for weight in (2.0, 0.0, 0.0)]
    assert scores == pytest.approx([2.0, 1.8, 1.62])


def test_wanda_ranks_by_what_a_weight_reads():
    run = REGISTRY.get("criterion", "wanda")().start({"w": (1, 2)})  # type: ignore[attr-defined]
    weights, inputs = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0], [4.0, 0.0]])
    run.observe(weights={"w": weights}, gradients={}, activations={"w": inputs})
    assert run.scores()["w"].tolist() == [[5.0, 2.0]]
