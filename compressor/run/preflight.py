"""What can be known before the expensive steps, and would otherwise be found out after them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from compressor.errors import InputError, RecipeError, SetupError
from compressor.model.runtime import import_onnxruntime, require_provider
from compressor.plugin import PruningMethod, Quantizer, Target, Task
from compressor.plugin.components import Exporter
from compressor.recipe.options import Verification
from compressor.recipe.plan import Plan, Step
from compressor.recipe.reads import trainings
from compressor.run.calls import plugin_call, read_only
from compressor.run.metrics import try_metric

if TYPE_CHECKING:
    from compressor.run.session import Session


def verifications(plan: Plan) -> Iterator[tuple[Step, Verification]]:
    """Yield the verify steps with their options."""
    for step in plan.steps:
        if isinstance(step.component, Verification):
            yield step, step.component


def tasks_read(step: Step, plan: Plan) -> tuple[Task, ...]:
    """Return the tasks all of whose train rows a step's method loads."""
    if not isinstance(step.component, PruningMethod):
        return ()
    with plugin_call(step.component, f"step {step.slug}"):
        return step.component.read_whole(plan.task)


def latency_targets(plan: Plan) -> Iterator[tuple[Step, Target]]:
    """Yield the steps that are asked for a latency, with their targets."""
    for step in plan.steps:
        if isinstance(target := getattr(step.component, "target", None), Target) and target.of_latency:
            yield step, target


def check_runtime(plan: Plan) -> None:
    """Check that onnxruntime and every provider that the plan asks for are there.

    Raises:
        SetupError: one is missing, or both flavours of onnxruntime are installed.
    """
    if any(step.verb in {"export", "verify"} for step in plan.steps):
        import_onnxruntime()
    for _, options in verifications(plan):
        require_provider(options.provider)
    for _, target in latency_targets(plan):
        require_provider(target.provider)


def check_training(plan: Plan, device: torch.device) -> None:
    """Check that this machine can train as the plan asks.

    Raises:
        SetupError: the precision needs a GPU, or a tracker is not installed.
    """
    for step, options in trainings(plan.steps):
        if options.precision == "fp16" and device.type != "cuda":
            raise SetupError(
                f"{step.path}: precision fp16 needs a CUDA device; the run is on {device.type}",
                hint="use precision bf16 or fp32, or a machine with a GPU",
            )
        try:
            for tracker in get_reporting_integration_callbacks(list(options.report_to) or "none"):  # type: ignore[no-untyped-call]  # transformers has no types here
                tracker()  # only a made one looks for its package
        except (ValueError, ImportError, RuntimeError) as error:
            raise SetupError(
                f"{step.path}: report_to {', '.join(options.report_to)}: {error}",
                hint="install the tracker, or leave report_to out",
            ) from error


def check_problem(plan: Plan, config: Any) -> None:
    """Check that what the checkpoint's outputs mean is what the task takes them for.

    Args:
        plan: with its task.
        config: of the checkpoint.

    Raises:
        InputError: they are not; says what both are.
    """
    needed, said = plan.task.problem_type, config.problem_type
    if needed == "single_label_classification" and config.num_labels == 1:
        said = said or "regression"
    if needed and said and said != needed:
        raise InputError(
            f"{plan.recipe.model}: wrong task for this checkpoint: task '{plan.task.name}' needs a "
            f"{needed.replace('_', ' ')}, the checkpoint is a {said.replace('_', ' ')} with {config.num_labels} outputs",
            hint="choose the task that the checkpoint was tuned for (compress components task), "
            "or correct problem_type in its config.json",
        )


def check_lengths(plan: Plan, longest: int) -> None:
    """Check that the model can read the lengths at which latency is measured.

    Args:
        plan: with its verify steps and its targets.
        longest: tokens the model's positions allow.

    Raises:
        RecipeError: it cannot; says where in the recipe.
    """
    asked: list[tuple[Step, tuple[str, ...], int]] = [
        (step, ("sequence",), length) for step, options in verifications(plan) for length in options.sequence
    ]
    asked += [
        (step, ("target", "sequence"), math.ceil(target.sequence))
        for step, target in latency_targets(plan)
        if target.sequence is not None
    ]
    problems = [
        plan.recipe.document.problem(
            ("steps", step.index, step.verb, *path),
            f"expected at most {most} tokens, the positions that the model has or is left with; got {length}",
        )
        for step, path, length in asked
        if length > (most := _longest_before(plan, step, longest))
    ]
    if problems:
        raise RecipeError(problems)


def _longest_before(plan: Plan, step: Step, longest: int) -> int:
    """Return how many tokens a model of so many can read when a step begins."""
    earlier = (each.component for each in plan.steps if each.index < step.index)
    left = (one.longest for one in earlier if isinstance(one, PruningMethod))
    return min([longest, *(length for length in left if length is not None)])


def check_method(plan: Plan, session: Session) -> None:
    """Let exporters, quantizers, the first method that prunes and those that read texts look at what the run starts from.

    What other methods find depends on what the first one leaves.

    Raises:
        CompressorError: its options do not suit the model, or it fails.
    """
    pruned = read = False
    for step in plan.steps:
        component = step.component
        if isinstance(component, Verification):
            try_metric(session, component)
            continue
        with plugin_call(component, f"step {step.slug}"):
            if isinstance(component, PruningMethod):
                _check_pruning(component, session, pruned=pruned, read=read)
                pruned, read = True, read or component.reads_texts
            elif isinstance(component, Exporter):
                component.check(session.model, plan.task)
            elif isinstance(component, Quantizer):
                component.check()


def _check_pruning(method: PruningMethod, session: Session, *, pruned: bool, read: bool) -> None:
    """Call a method's checks that are due: of the model before any pruning, of texts wherever it reads them.

    Args:
        method: of a step.
        session: as it was opened.
        pruned: whether an earlier step prunes.
        read: whether an earlier step reads texts.
    """
    if pruned and not method.reads_texts:
        return
    with read_only(method, session):
        if not pruned:
            method.check(session.model)
        if method.reads_texts:
            method.check_texts(session, first=not read)
