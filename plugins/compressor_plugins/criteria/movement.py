"""Whether training moves a weight away from zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from compressor.plugin import Component, Criterion, CriterionRun, RunningScores, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Movement(Criterion):
    """``sum of -w * g`` over steps: weights that training shrinks go first. Meant for pruning while a model is trained.

    Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", 2020, https://arxiv.org/abs/2005.07683.
    """

    name: ClassVar[str] = "movement"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(targets, lambda weight, gradient: -weight * gradient, decay=1.0)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criterion."""
    yield Movement
