"""Honesty: what a plan will not show, or cannot achieve, said before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.plugin import Target
from compressor.recipe.options import Verification

if TYPE_CHECKING:
    from compressor.recipe.plan import Step


def lint(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return remarks about the steps; none of them stops a run."""
    remarks = [
        f"{step.path}: a sparsity target zeroes single weights; onnxruntime computes with zeros as with any number, "
        "so the model gets no faster and no smaller"
        for step in steps
        if isinstance(target := getattr(step.component, "target", None), Target) and target.sparsity is not None
    ]
    checks = [step for step in steps if isinstance(step.component, Verification)]
    if not checks:
        remarks.append("no verify step: no latency or accuracy will be measured")
    remarks += [
        f"{step.path}: no gates, so the exit code will be 0 whatever is measured"
        for step in checks
        if isinstance(step.component, Verification) and not step.component.gates.given()
    ]
    return tuple(remarks)
