"""What can be known before the expensive steps, and would otherwise be found out after them."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.errors import RecipeError
from compressor.model.runtime import import_onnxruntime, require_provider
from compressor.recipe.options import Verification
from compressor.recipe.plan import Plan, Step


def verifications(plan: Plan) -> Iterator[tuple[Step, Verification]]:
    """Yield the verify steps with their options."""
    for step in plan.steps:
        if isinstance(step.component, Verification):
            yield step, step.component


def check_runtime(plan: Plan) -> None:
    """Check that onnxruntime and every provider that the plan asks for are there.

    Raises:
        SetupError: one is missing, or both flavours of onnxruntime are installed.
    """
    if any(step.verb in {"export", "verify"} for step in plan.steps):
        import_onnxruntime()
    for _, options in verifications(plan):
        require_provider(options.provider)


def check_lengths(plan: Plan, longest: int) -> None:
    """Check that the model can read the lengths at which latency is measured.

    Args:
        plan: with its verify steps.
        longest: tokens the model's positions allow.

    Raises:
        RecipeError: it cannot; says where in the recipe.
    """
    problems = [
        plan.recipe.document.problem(
            ("steps", step.index, step.verb, "sequence"),
            f"expected at most {longest} tokens, the positions that the model has; got {length}",
        )
        for step, options in verifications(plan)
        for length in options.sequence
        if length > longest
    ]
    if problems:
        raise RecipeError(problems)
