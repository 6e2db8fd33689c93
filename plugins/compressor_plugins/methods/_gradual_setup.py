"""Pruners of ``gradual`` set up on a training: whose layers, cut how, pruned when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.elements import zero_masks
from compressor.model.masks import Masks
from compressor.model.weights import divided_weights
from compressor.progress import announced
from compressor.prune import Schedule, cut_weights, epoch_schedule
from compressor_plugins.methods._gradual_pruner import PARTS, Ground, Pruner

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.model.blocks import Blocks
    from compressor.train import TrainingRun
    from compressor_plugins.methods._gradual_options import PrunerOptions
    from compressor_plugins.methods.gradual import Gradual


def set_up(method: Gradual, run: TrainingRun) -> tuple[list[Pruner], Masks]:
    """Return the pruners of a method on a training, and the masks of those that only lock what is there.

    Raises:
        InputError: two own one layer, one owns none, or the steps do not suffice.
    """
    parts = divided_weights(run.student, [options.chosen() for options in method.pruners])
    pruners, locked = [], Masks({})
    for number, (options, chosen) in enumerate(zip(method.pruners, parts, strict=True)):
        label = f"pruning_configs.{number}" if method.pruning_configs else method.name
        layouts = _layouts(options, chosen, label)
        weights = {name: chosen[name] for name in layouts}
        if options.pattern_lock:
            locked = locked.merge(_zeros(weights, layouts, f"{label}: {options.chosen_pattern.label}"))
        else:
            schedule = scheduled(options, run, label)
            pruners.append(Pruner(options, Ground(weights, layouts, run.enforced.masks, schedule)))
    return pruners, locked


def _layouts(options: PrunerOptions, weights: Mapping[str, Tensor], label: str) -> dict[str, Blocks]:
    """Return how the chosen weights are cut, by parameter name; say which ones do not divide."""
    pattern = options.chosen_pattern
    layouts, skipped = cut_weights(weights, pattern.blocks)
    for name, why in skipped.items():
        announced.warning("%s stays dense under pattern %s: %s", name, pattern.label, why)
    if not layouts:
        raise InputError(
            f"{label}: none of the {len(weights)} chosen weights can take the pattern {pattern.label}",
            hint="look at op_names, excluded_op_names and pruning_op_types",
        )
    small = min(blocks.dropped for blocks in layouts.values())
    if options.progressive and small < PARTS:
        raise InputError(
            f"{label}: the progressive mode needs blocks of which {PARTS} weights or more go; of {pattern.label} go {small}",
            hint="use the plain mode, or a pattern such as 4x1 or 1xchannel",
        )
    return layouts


def scheduled(options: PrunerOptions, run: TrainingRun, label: str) -> Schedule:
    """Return the events' steps.

    Raises:
        InputError: they do not lie within the training.
    """
    per_epoch = len(run.rows) / run.layout.batch_size
    asked = epoch_schedule(
        per_epoch,
        epochs=run.steps / per_epoch if run.options.max_steps else run.options.epochs,
        warm=options.sparsity_warm_epochs,
        cooldown=options.cooldown_epochs,
    )
    start = asked.start if options.start_step is None else options.start_step
    end = min(asked.end, run.steps - 1) if options.end_step is None else options.end_step
    if not start <= end < run.steps:
        raise InputError(
            f"{label}: pruning from step {start} to {end} does not lie within the {run.steps} steps of the training",
            hint="look at sparsity_warm_epochs, cooldown_epochs, start_step, end_step and train.epochs",
        )
    return epoch_schedule(1.0, epochs=end, warm=start, frequency=options.pruning_frequency)


def _zeros(weights: Mapping[str, Tensor], layouts: Mapping[str, Blocks], label: str) -> Masks:
    masks = zero_masks(weights)
    for name, mask in masks.keep.items():
        if not layouts[name].holds(mask):
            raise InputError(f"{label} does not describe the zeros of {name}", hint="pattern 1x1 locks any zeros")
    if not masks.sparsity:
        raise InputError(f"{label}: pattern_lock keeps zeros, and the chosen weights have none")
    return masks
