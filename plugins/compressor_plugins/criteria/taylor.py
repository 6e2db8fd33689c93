"""What the loss loses, to first order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from compressor.plugin import Component, Criterion, CriterionRun, RunningScores, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Taylor(Criterion):
    """``sum of (w * g)^2`` over batches.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, https://arxiv.org/abs/1906.10771.
    """

    name: ClassVar[str] = "taylor"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(targets, lambda weight, gradient: (weight * gradient).square(), decay=1.0)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criterion."""
    yield Taylor
