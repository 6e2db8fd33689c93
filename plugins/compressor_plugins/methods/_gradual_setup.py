"""Pruners of ``gradual`` set up on a training: whose layers, cut how, pruned when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.elements import zero_masks
from compressor.model.masks import Masks
from compressor.model.weights import divided_weights
from compressor.prune import Schedule, epoch_schedule
from compressor_plugins.methods._gradual_pruner import PARTS, Ground, Pruner
from compressor_plugins.methods._layouts import layouts_of, say_skipped

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.model.blocks import Blocks
    from compressor.train import TrainingRun
    from compressor_plugins.methods._gradual_options import PrunerOptions
    from compressor_plugins.methods.gradual import Gradual


def set_up(method: Gradual, run: TrainingRun) -> tuple[list[Pruner], Masks]:
    """Return the pruners of a method on a training, and the masks of those that only lock what is there.

    Raises:
        InputError: two own one layer, one owns none, or the steps do not suffice.
    """
    pruners, locked = [], Masks({})
    for part in parts_of(method, run.student):
        options, pattern = part.options, part.options.chosen_pattern
        say_skipped(part.skipped, pattern, part.label)
        if options.pattern_lock:
            locked = locked.merge(_zeros(part.weights, part.layouts, f"{part.label}: {pattern.label}"))
        else:
            schedule = scheduled(options, run, part.label)
            pruners.append(Pruner(options, Ground(part.weights, part.layouts, run.enforced.masks, schedule)))
    return pruners, locked


@dataclass(frozen=True)
class Part:
    """One pruner's layers.

    Attributes:
        options: of the pruner.
        label: its place in the recipe, for messages.
        weights: its own, by parameter name.
        layouts: how they are cut.
        skipped: why others that it chose stay dense.
    """

    options: PrunerOptions
    label: str
    weights: Mapping[str, Tensor]
    layouts: Mapping[str, Blocks]
    skipped: Mapping[str, str]


def parts_of(method: Gradual, model: nn.Module) -> list[Part]:
    """Return each pruner's layers of a model.

    Raises:
        InputError: two own one layer, one owns none, or its blocks are too small for the progressive mode.
    """
    divided = divided_weights(model, [options.chosen() for options in method.pruners])
    parts = []
    for number, (options, chosen) in enumerate(zip(method.pruners, divided, strict=True)):
        label = f"pruning_configs.{number}" if method.pruning_configs else method.name
        layouts, skipped = layouts_of(model, chosen, options.chosen_pattern, label)
        _check_progressive(options, layouts, label)
        parts.append(Part(options, label, {name: chosen[name] for name in layouts}, layouts, skipped))
    return parts


def _check_progressive(options: PrunerOptions, layouts: Mapping[str, Blocks], label: str) -> None:
    small = min(blocks.dropped for blocks in layouts.values())
    if options.progressive and small < PARTS:
        raise InputError(
            f"{label}: the progressive mode needs blocks of which {PARTS} weights or more go; "
            f"of {options.chosen_pattern.label} go {small}",
            hint="use the plain mode, or a pattern such as 4x1 or 1xchannel",
        )


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
