"""Conformance of metrics of one's own."""

# ruff: noqa: S101 - assertions are what this module is for

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from compressor.plugin import Metric
from compressor.testing.declarations import assert_declaration_conforms, asserted

ROWS, CLASSES = 60, 3


def assert_metric_conforms(metric: Metric, rows: Mapping[str, np.ndarray] | None = None) -> None:
    """Assert that a metric keeps its contract: a plugin author's one-line test.

    It gives a finite number, the same again and in whatever order the rows are, leaves the table as it is, and can be
    computed on rows drawn with replacement, as the bootstrap does.

    Args:
        metric: with its options.
        rows: a task's table, see ``docs/tasks.md``; default: that of a classifier with three classes.
    """
    assert_declaration_conforms(metric)
    table = dict(rows or _classified())
    before = {name: column.copy() for name, column in table.items()}
    count = len(next(iter(table.values())))
    generator = np.random.default_rng(0)
    with asserted(metric):
        found = metric.compute(table)
        assert isinstance(found, int | float | np.number), f"expected a number; got {found!r}"
        assert math.isfinite(found), f"expected a finite number; got {found!r}"
        assert metric.compute(table) == found, "the same rows gave another number"
        assert all(np.array_equal(before[name], column) for name, column in table.items()), "the table was changed"
        shuffled = _taken(table, generator.permutation(count))
        assert math.isclose(metric.compute(shuffled), found, rel_tol=1e-9), "the order of rows matters"
        for _ in range(3):
            drawn = metric.compute(_taken(table, generator.integers(0, count, size=count)))
            assert math.isfinite(drawn), f"rows drawn with replacement: expected a finite number; got {drawn!r}"


def _taken(table: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


def _classified() -> dict[str, np.ndarray]:
    """Return the table of a classifier that is often right."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, size=ROWS)
    outputs = generator.normal(size=(ROWS, CLASSES)) + 2 * np.eye(CLASSES)[labels]
    predictions = outputs.argmax(axis=1)
    return {"outputs": outputs, "labels": labels, "predictions": predictions, "correct": predictions == labels}
