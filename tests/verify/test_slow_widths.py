from __future__ import annotations

from compressor.verify.slow_widths import SlowWidth, slow_widths
from tests.model.test_latency_table import costs, table


def test_a_width_that_costs_more_than_a_larger_one_is_slow():
    slow = table(ffn_neurons=costs((0, 16, 32, 48, 64), (0.0, 1.0, 2.4, 2.0, 3.0)))
    assert slow_widths(slow) == [SlowWidth("ffn_neurons", 32, 2.4, 48, 2.0)]


def test_a_width_above_its_neighbours_line_is_slow():
    (found,) = slow_widths(table(ffn_neurons=costs((0, 16, 32, 48, 64), (0.0, 1.0, 1.9, 2.0, 3.0))))
    assert (found.kind, found.count, found.instead) == ("ffn_neurons", 32, None)
    assert found.instead_ms == (1.0 * 1.01 + 2.0 * 1.01) / 2


def test_differences_within_the_intervals_are_not_reported():
    assert slow_widths(table(ffn_neurons=costs((0, 16, 32, 48, 64), (0.0, 1.0, 2.4, 2.0, 3.0), noise=0.3))) == []


def test_the_first_unit_may_cost_more_than_the_next_ones():
    assert slow_widths(table(heads=costs((0, 1, 2, 3, 4), (0.0, 1.0, 1.2, 1.4, 1.6)))) == []
