"""The numerics of ``obs``: statistics, removal orders, allocation, and the students' way up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from compressor.plugin import Pruned
from compressor.progress import track
from compressor.prune import (
    DensePass,
    Removal,
    Student,
    Teacher,
    layer_names,
    remove_units,
    temporary_shelf,
    token_weights,
)
from compressor_plugins.methods._budget import sequence_of
from compressor_plugins.methods._latency import budget_of
from compressor_plugins.methods._obs_points import Point
from compressor_plugins.methods._report import Stopwatch

if TYPE_CHECKING:
    from compressor.model.groups import PrunableGroup
    from compressor.plugin import Target
    from compressor.prune import SublayerStatistics
    from compressor.run.session import Session
    from compressor_plugins.methods.obs import Obs

ALIGNMENT = 16
"""FFN widths above four times this are multiples of it: what lies between costs as much in onnxruntime."""
SHARE = 0.06
"""Most of the neurons that are left between two levels."""


def prune_all(method: Obs, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
    """Run the whole method on a session, for all targets together."""
    watch = Stopwatch()
    with watch.phase("budget"):
        budgets = [
            budget_of(target, session, sequence_of(target, session)) for target in targets
        ]  # one out of reach stops here
    with temporary_shelf(session.device) as shelf:
        teacher = Teacher(
            session.model,
            session.family,
            batches=lambda: session.calibration.batches(session.device),
            shelf=shelf,
            token_weights=token_weights(layer_names(session.groups), session.task.token_weights),
        )
        with watch.phase("statistics"):
            statistics = dense_statistics(method, session, teacher)
        with watch.phase("removal"):
            orders = removal_orders(method, session, statistics)
        with watch.phase("correction"):
            points = [Point.of(session, orders, budget) for budget in budgets]
            students = [
                Student(
                    teacher, point.start(session, statistics), name=f"student{number}", undo_drift=method.undo_drift
                )
                for number, point in enumerate(points)
            ]
            for layer in track(teacher.layers, "Correcting layers"):
                teacher.advance(layer)
                for student in students:
                    student.climb(layer)
    for point, student, target in zip(points, students, targets, strict=True):
        yield point.pruned(session, student, target, watch.seconds)


def dense_statistics(method: Obs, session: Session, teacher: Teacher) -> dict[str, SublayerStatistics]:
    """Return the statistics of every sublayer; bring the teacher to the lowest layer in the same pass."""
    generator = np.random.default_rng(session.seed)

    def signals(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        z = session.task.output(raw, batch)
        return session.task.curvature(z, temperature=method.temperature, draws=method.projections, generator=generator)

    dense = DensePass(session.model, session.groups, signals=signals, token_weights=teacher.token_weights)
    teacher.start(dense.run)
    return dense.statistics


def removal_orders(method: Obs, session: Session, statistics: Mapping[str, SublayerStatistics]) -> dict[str, Removal]:
    """Return in which order every group loses its units, and at what estimated divergence per row."""
    orders = {}
    for group in track([group for group in session.groups if group.units], "Removal orders"):
        own = statistics[group.name]
        weight = session.model.get_parameter(f"{group.consumer.module}.weight").detach().double()
        orders[group.name] = remove_units(
            own.covariance,
            weight.T @ own.metric * math.sqrt(0.5),
            width=group.width,
            counts=counts_of(group),
            ridge=method.ridge,
        )
    return orders


def counts_of(group: PrunableGroup) -> list[int]:
    """Return how many units may be left, descending to 0: any number of heads, ever finer steps of neurons."""
    counts, left = [], group.units
    while left:
        step = 1 if group.kind == "heads" else max(1, int(SHARE * left))
        aligned = ALIGNMENT if left - step > 4 * ALIGNMENT and group.kind != "heads" else 1
        left = (left - step) // aligned * aligned
        counts.append(left)
    return counts
