"""The size of a weight's gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from compressor.plugin import Component, Criterion, CriterionRun, RunningScores, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Gradient(Criterion):
    """``abs(g)`` of the last gradient. Without training: of the gradient of all calibration rows."""

    name: ClassVar[str] = "gradient"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    accumulates: ClassVar[bool] = False

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(targets, lambda _, gradient: gradient.abs(), decay=0.0)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criterion."""
    yield Gradient
