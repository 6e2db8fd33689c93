"""The size of a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from compressor.plugin import Component, Criterion, CriterionRun, RunningScores, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Magnitude(Criterion):
    """``abs(w)`` of the weights as they are."""

    name: ClassVar[str] = "magnitude"

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(targets, lambda weight, _: weight.abs(), decay=0.0, gradients=False)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criterion."""
    yield Magnitude
