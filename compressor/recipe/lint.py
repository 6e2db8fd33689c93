"""Honesty: what a plan will not show, or cannot achieve, said before it runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from compressor.plugin import PruningMethod, Quantizer, SparsityPattern, Training
from compressor.plugin.component import nested
from compressor.recipe.options import Verification

if TYPE_CHECKING:
    from compressor.recipe.plan import Step


ZEROS = "onnxruntime computes with zeros as with any number"


def _of_zeros(step: Step) -> Iterator[str]:
    """Yield what zeros in weights are not good for, and what they are."""
    patterns = {one.label: one for one in nested(step.component) if isinstance(one, SparsityPattern)}
    for label, pattern in patterns.items():
        if pattern.structured:
            yield (
                f"{step.path}: of {label}, FFN neurons and whole heads that become empty are taken out; what the residual "
                f"stream reads or writes stays as zeros, and {ZEROS}"
            )
            continue
        yield (
            f"{step.path}: {label} zeroes weights where they stand; {ZEROS} (measured on its CPU provider: 1.00x), and the file "
            f"stays as large. Such zeros are good for {pattern.use}. Faster on the CPU are structured methods, which remove heads "
            "and neurons under a target of macs or latency (compress components method)"
        )
    if isinstance(step.component, PruningMethod) and step.component.zeroes and not patterns:
        yield f"{step.path}: {step.component.name} zeroes single weights; {ZEROS}, so the model gets no faster and no smaller"


def lint(steps: Sequence[Step]) -> tuple[str, ...]:
    """Return remarks about the steps; none of them stops a run."""
    remarks = [remark for step in steps for remark in _of_zeros(step)]
    first = next((step.index for step in steps if step.verb == "prune"), len(steps))
    remarks += [
        f"{step.path}: nothing is pruned yet, so these losses compare the model with itself: nothing is learned"
        for step in steps[:first]
        if isinstance(step.component, Training) and not any(loss.needs_labels for loss in step.component.losses)
    ]
    checks = [step for step in steps if isinstance(step.component, Verification)]
    if not checks:
        remarks.append("no verify step: no latency or accuracy will be measured")
    remarks += [
        f"{step.path}: no gates, so the exit code will be 0 whatever is measured"
        for step in checks
        if isinstance(step.component, Verification) and not step.component.gates.given()
    ]
    remarks += [
        f"{step.path}: max_drop chooses layers by validation rows, so what verify finds on the same rows is a little too good"
        for step in steps
        if isinstance(step.component, Quantizer) and getattr(step.component, "max_drop", None) is not None
    ]
    return tuple(remarks)
