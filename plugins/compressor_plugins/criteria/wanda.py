"""The size of a weight times the norm of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from compressor.plugin import Component, Criterion, CriterionRun, hookimpl

Shapes = Mapping[str, tuple[int, ...]]


class Wanda(Criterion):
    """``abs(w_ij) * ||x_j||_2`` over the tokens of the calibration rows.

    Sun, Liu, Bair and Kolter, "A Simple and Effective Pruning Approach for Large Language Models", 2023,
    https://arxiv.org/abs/2306.11695. As published it compares the weights of one output: ``pruning_scope: row``.
    """

    name: ClassVar[str] = "wanda"
    needs: ClassVar[frozenset[str]] = frozenset({"activations"})

    def start(self, targets: Shapes) -> CriterionRun:
        """Start scoring weights."""
        from compressor_plugins.criteria._elements import WandaScores

        return WandaScores(targets)


@hookimpl
def compressor_components() -> Iterable[type[Component]]:
    """Provide the criterion."""
    yield Wanda
