from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from compressor.errors import CompressorError, InputError
from compressor.model.groups import UnitKind
from compressor.model.latency_table import BlockCosts, Check, LatencyTable, Workload


def costs(counts: tuple[int, ...], milliseconds: tuple[float, ...], noise: float = 0.01) -> BlockCosts:
    lower, upper = (tuple(cost * (1 + sign * noise) for cost in milliseconds) for sign in (-1, 1))
    return BlockCosts(counts, milliseconds, lower, upper)


def table(**changes: Any) -> LatencyTable:
    whole = LatencyTable(
        workload=Workload(batch=1, sequence=128),
        clock="cpu",
        layers=2,
        heads=costs((0, 1, 2, 3, 4), (0.0, 0.5, 0.9, 1.4, 2.0)),
        ffn_neurons=costs((0, 16, 32, 64), (0.0, 1.0, 1.5, 3.0)),
        dense_ms=12.0,
        fixed_ms=1.0,
        bend_ms=0.8,
        check=Check((3, 1), (16, 32), 5.0, 4.9, 5.1),
        control=1.001,
        confidence=0.95,
    )
    return replace(whole, **changes)


DENSE: list[tuple[UnitKind, int]] = [("heads", 4), ("ffn_neurons", 64)] * 2


def test_costs_are_exact_at_measured_counts_and_linear_between_them():
    assert [table().milliseconds("heads", count) for count in range(5)] == [0.0, 0.5, 0.9, 1.4, 2.0]
    assert table().milliseconds("ffn_neurons", 24) == pytest.approx(1.25)
    assert table().milliseconds("ffn_neurons", 8) == pytest.approx(0.5)
    assert table().curve("ffn_neurons").shape == (65,)
    for count in range(65):
        assert table().curve("ffn_neurons")[count] == table().milliseconds("ffn_neurons", count)


def test_costs_below_nothing_are_noise():
    noisy = table(heads=costs((0, 1, 4), (0.0, -0.2, 2.0)))
    assert noisy.milliseconds("heads", 1) == 0.0
    assert noisy.curve("heads").min() == 0.0
    assert noisy.heads.milliseconds[1] == -0.2


@pytest.mark.parametrize("count", [-1, 5])
def test_more_units_than_the_dense_model_has_are_an_error(count: int):
    with pytest.raises(CompressorError, match="0 to 4"):
        table().milliseconds("heads", count)


def test_predictions_are_exact_for_the_dense_and_the_emptied_model():
    assert table().predict(DENSE) == pytest.approx(12.0)
    assert table().ratio(DENSE) == pytest.approx(1.0)
    assert table().predict([]) == 1.0
    assert table().lowest_ratio == pytest.approx(1 / 12)


def test_a_model_between_them_is_the_line_and_the_bend():
    half: list[tuple[UnitKind, int]] = [("heads", 4), ("heads", 4), ("ffn_neurons", 16)]
    assert table().predict(half) == pytest.approx(1 + 11 * 0.5 + 0.8 * 0.25)
    assert table(bend_ms=0.0).predict(half) == pytest.approx(1 + 11 * 0.5)


@pytest.mark.parametrize("bend", [-5.0, -0.3, 0.0, 0.8, 5.0])
def test_what_may_be_spent_is_the_inverse_of_the_prediction(bend: float):
    bent = table(bend_ms=bend)
    for milliseconds in np.linspace(1.0, 12.0, 23):
        assert bent.at(bent.spendable(milliseconds)) == pytest.approx(milliseconds)
    assert bent.spendable(99.0) == bent.whole_ms == pytest.approx(10.0)
    assert bent.spendable(0.5) < 0


def test_a_table_comes_back_from_json():
    assert LatencyTable.from_json(table().to_json()) == table()


def broken(**changes: Any) -> str:
    return json.dumps({**json.loads(table().to_json()), **changes})


HEADS = json.loads(table().to_json())["heads"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        table().to_json()[:-9],
        broken(layers=0),
        broken(layers="2"),
        broken(dense_ms=None),
        broken(dense_ms=float("nan")),
        broken(fixed_ms=12.0),
        broken(bend_ms=11.5),
        broken(clock="sun"),
        broken(more=1),
        broken(heads={**HEADS, "upper": [0.0]}),
        broken(heads={**HEADS, "counts": [0, 1, 2, 2, 4]}),
        broken(heads={**HEADS, "counts": [1, 2, 3, 4, 5]}),
        broken(heads={**HEADS, "milliseconds": [0.1, 0.5, 0.9, 1.4, 2.0]}),
    ],
)
def test_a_damaged_table_is_an_error_in_one_line(text: str):
    with pytest.raises(InputError, match=r"^not a latency table: [^\n]+$"):
        LatencyTable.from_json(text)
