"""Two processes that divide the calibration batches prune as one process does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compressor.plugin import Pruned, Registry
from tests.plugins.sessions import label_free, labelled
from tests.prune.test_sharing import by_two

REGISTRY = Registry.load()
DIVIDED: list[tuple[str, dict[str, Any]]] = [
    ("fisher", {"target": {"macs": 0.5}}),
    ("fisher", {"target": {"macs": 0.5}, "importance": "batch-mean", "tuning": "scales", "teacher": "milder"}),
    ("one_shot", {"target": {"sparsity": 0.5}, "pattern": "4x1", "criterion": "snip"}),
    ("sparsegpt", {"target": {"sparsity": 0.5}, "pattern": "2:4"}),
]


def method(name: str, options: dict[str, Any]) -> Any:
    return REGISTRY.get("method", name).model_validate(options, context={"registry": REGISTRY})


def assert_same(found: Pruned, expected: Pruned) -> None:
    assert found.masks == expected.masks
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        torch.testing.assert_close(found.weights[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "options"), DIVIDED, ids=["fisher", "fisher as published", "one_shot", "sparsegpt"])
def test_two_processes_prune_as_one(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    asked = method(name, options)
    assert asked.joint
    alone = asked.prune(labelled())
    sessions = [labelled(), labelled()]  # made one after another: both seed torch
    first, second = by_two(lambda rank: asked.prune(sessions[rank]), monkeypatch)
    assert_same(first, alone)
    assert first.masks == second.masks
    assert all(torch.equal(weight, second.weights[key]) for key, weight in first.weights.items())


def test_without_labels_importance_is_not_divided_and_tuning_is(monkeypatch: pytest.MonkeyPatch):
    asked = method("fisher", {"target": {"macs": 0.5}})
    sessions = [label_free(), label_free()]
    for found in by_two(lambda rank: asked.prune(sessions[rank]), monkeypatch):
        assert_same(found, asked.prune(label_free()))


def test_what_is_measured_or_depends_on_the_order_is_left_to_the_first_process():
    assert not method("fisher", {"target": {"latency": 0.5}}).joint
    for criterion in ("magnitude", "wanda"):
        options = {"target": {"sparsity": 0.5}, "pattern": "2:4", "criterion": criterion}
        assert not method("one_shot", options).joint
