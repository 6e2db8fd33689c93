"""``fisher`` under a latency target, on tables that are made up: what is measured is another module's business."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compressor.errors import InputError
from compressor.model import Masks, shrink
from compressor.model.latency_table import LatencyTable
from compressor.plugin import Target
from compressor.run.session import Session
from compressor_plugins.methods import _fisher
from compressor_plugins.methods._latency import LatencyBudget
from compressor_plugins.methods.fisher import Fisher
from tests.model.test_latency_table import costs, table
from tests.plugins.sessions import labelled


def toy_table(**changes: Any) -> LatencyTable:
    """Return costs of the tiny model's 3 layers of 4 heads and 48 neurons."""
    return table(**{"layers": 3, "ffn_neurons": costs((0, 16, 32, 48), (0.0, 1.0, 1.5, 3.0)), **changes})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Answer every request for a table, and note it."""
    requests: list[dict[str, Any]] = []

    def answer(_: Session, **request: Any) -> LatencyTable:
        requests.append(request)
        return toy_table()

    monkeypatch.setattr(Session, "latency_table", answer)
    return requests


def counts(session: Session, masks: Masks) -> list[tuple[Any, int]]:
    return [(group.kind, int(masks.keep[group.name].sum())) for group in session.groups]


@pytest.mark.parametrize("latency", [0.15, 0.4, 0.6, 0.9, 1.0])
def test_the_predicted_latency_is_within_the_target(latency: float, asked: list[dict[str, Any]]) -> None:
    session = labelled()
    pruned = Fisher(target=Target(latency=latency)).prune(session)
    predicted = toy_table().ratio(counts(session, pruned.masks))
    assert latency - 0.09 < predicted <= latency + 1e-9
    assert pruned.metrics["latency_target"]["predicted"] == pytest.approx(predicted)
    assert pruned.metrics["latency_target"]["predicted_ms"] == pytest.approx(12 * predicted)
    assert len(asked) == 1


def test_milliseconds_mean_the_same_as_their_ratio(asked: list[dict[str, Any]]) -> None:
    session = labelled()
    ratio, absolute = (
        Fisher(target=Target(**amount)).prune(session) for amount in ({"latency": 0.5}, {"latency_ms": 6.0})
    )
    assert ratio.masks == absolute.masks
    assert Fisher(target=Target(latency_ms=99.0)).prune(session).metrics["macs_kept"] == 1.0
    assert len(asked) == 3


def test_the_table_is_asked_for_the_targets_workload(asked: list[dict[str, Any]]) -> None:
    session = labelled()
    Fisher(target=Target(latency=0.5, batch=8, sequence=33.2, threads=2)).prune(session)
    Fisher(target=Target(latency=0.5)).prune(session)
    mean = session.calibration.mean_length
    assert asked[0] == {"batch": 8, "sequence": 34, "threads": 2, "provider": "cpu"}
    assert mean < asked[1]["sequence"] < mean + 1


def test_widths_are_aligned_and_a_slow_one_is_avoided(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = toy_table(ffn_neurons=costs((0, 16, 32, 48), (0.0, 1.0, 5.0, 3.0)))
    monkeypatch.setattr(Session, "latency_table", lambda *_, **__: slow)
    session = labelled()
    for latency in (0.3, 0.5, 0.7, 0.9):
        pruned = Fisher(target=Target(latency=latency)).prune(session)
        assert set(pruned.metrics["neurons_kept"]) <= {0, 16, 48}


def test_a_target_out_of_reach_names_the_lowest_ratio_before_anything_is_pruned(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fisher, "gate_gradients", lambda *_: pytest.fail("importance was measured"))
    with pytest.raises(InputError, match=r"lowest reachable ratio: 0\.083") as caught:
        Fisher(target=Target(latency=0.01)).prune(labelled())
    assert "latency: 0.1 or more" in str(caught.value.hint)
    assert len(asked) == 1


def test_the_milder_teacher_takes_the_square_root_of_the_time(asked: list[dict[str, Any]]) -> None:
    session, method = labelled(), Fisher(target=Target(latency=0.36), teacher="milder")
    gradients = _fisher.importance_gradients(method, session)
    budget = _fisher.budget_of(method.target, session, 10.0)
    assert isinstance(budget, LatencyBudget)
    masks, milder = _fisher.choose_masks(method, session, gradients, budget)
    ratios = [toy_table().ratio(counts(session, found)) for found in (masks, milder)]
    assert ratios[0] <= 0.36
    assert 0.5 < ratios[1] <= 0.6
    assert len(asked) == 1


def test_a_model_that_was_pruned_before_is_measured_against_the_one_the_run_started_from(
    asked: list[dict[str, Any]],
) -> None:
    session = labelled()
    first = Fisher(target=Target(latency=0.6)).prune(session)
    smaller = shrink(session.model, session.family, first.masks, first.weights)
    again = Fisher(target=Target(latency=0.5)).prune(replace(session, model=smaller, teacher=smaller))
    before, after = toy_table().predict(counts(session, first.masks)), again.metrics["latency_target"]["predicted_ms"]
    assert after <= 0.5 * before
    assert len(asked) == 2
