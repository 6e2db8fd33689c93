"""Connection sensitivity, of one gradient or with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from pydantic import Field

from compressor.plugin import Component, Criterion, CriterionRun, RunningScores, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Snip(Criterion):
    """``abs(w * g)`` of the last gradient. Without training: of the gradient of all calibration rows.

    Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", 2018,
    https://arxiv.org/abs/1810.02340.
    """

    name: ClassVar[str] = "snip"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})
    accumulates: ClassVar[bool] = False

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(targets, lambda weight, gradient: (weight * gradient).abs(), decay=0.0)


class SnipMomentum(Criterion):
    """``s <- momentum * s + scale * abs(w * g)`` at every step, from 0: neural-compressor's default criterion.

    A pruned weight adds ``abs(0 * g) = 0``, so its score only decays. There is no bias correction: ranks do not need it.
    """

    name: ClassVar[str] = "snip_momentum"
    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    momentum: float = Field(default=0.9, ge=0, lt=1, description="What is left of the old scores at every step.")
    scale: float = Field(default=1.0, gt=0, description="Weight of the new score.")

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        return RunningScores(
            targets, lambda weight, gradient: self.scale * (weight * gradient).abs(), decay=self.momentum
        )


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criteria."""
    yield Snip
    yield SnipMomentum
