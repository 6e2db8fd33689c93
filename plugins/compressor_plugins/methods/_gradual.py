"""The numerics of ``gradual``: pruners set up on a training, and hooked into it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.model.masks import Masks
from compressor.model.weights import filtered_weights
from compressor.plugin import Pruned
from compressor.progress import announced
from compressor.prune import Schedule, cut_weights, epoch_schedule
from compressor.train import Extension, TrainingRun
from compressor_plugins.methods._gradual_pruner import Ground, Pruner

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods._gradual_options import PrunerOptions
    from compressor_plugins.methods.gradual import Gradual


def prune(method: Gradual, session: Session) -> Pruned:
    """Run the method on a session."""
    run = TrainingRun(session, method.train)
    pruners, locked = set_up(method, run)
    pruning = Pruning(run, pruners, locked)
    key = json.dumps(method.options(), sort_keys=True)
    trained = run.fit(Extension(callbacks=[pruning], states={"pruning": pruning}, key=key))
    masks = Masks({name: mask.cpu() for name, mask in run.enforced.masks.keep.items()})
    weights = {name: value.detach() for name, value in trained.model.named_parameters()}
    figures = [pruner.figures() for pruner in pruners]
    aligned = tuple(
        name
        for pruner in pruners
        if not pruner.options.chosen_pattern.structured
        for name, blocks in pruner.ground.layouts.items()
        if blocks.size > 1
    )
    metrics = {"pruners": figures, "locked": len(locked.keep), "training": dict(trained.figures)}
    return Pruned(masks, weights=weights, aligned=aligned, metrics=metrics)


class Pruning(TrainerCallback):
    """Hooks pruners into a training.

    Attributes:
        run: the training.
        pruners: each with layers of its own.
        locked: masks that stay as they are.
    """

    def __init__(self, run: TrainingRun, pruners: Sequence[Pruner], locked: Masks) -> None:
        self.run, self.pruners, self.locked = run, pruners, locked
        self.run.enforced.hold(run.enforced.masks.merge(locked))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Prune, where it is time to."""
        found = [masks for pruner in self.pruners if (masks := pruner.masks_at(state.global_step)) is not None]
        if found:
            held = dict(self.run.enforced.masks.keep)
            for masks in found:
                held |= masks.keep
            self.run.enforced.hold(Masks(held))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Let the criteria see the gradients."""
        for pruner in self.pruners:
            pruner.observe()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:  # noqa: ARG002 - transformers'
        """Shrink blocks, where that is asked for."""
        rate = given["optimizer"].param_groups[0]["lr"]
        for pruner in self.pruners:
            schedule = pruner.ground.schedule
            if pruner.options.reg_type and schedule.start <= state.global_step <= schedule.end:
                pruner.shrink_blocks(rate * pruner.options.reg_coeff)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pruners' states."""
        return {f"{number}/{k}": v for number, one in enumerate(self.pruners) for k, v in one.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave."""
        for number, pruner in enumerate(self.pruners):
            start = f"{number}/"
            pruner.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})


def set_up(method: Gradual, run: TrainingRun) -> tuple[list[Pruner], Masks]:
    """Return the pruners of a method on a training, and the masks of those that only lock what is there.

    Raises:
        InputError: two own one layer, one owns none, or the steps do not suffice.
    """
    owners: dict[str, str] = {}
    pruners, locked = [], Masks({})
    for number, options in enumerate(method.pruners):
        label = f"pruning_configs.{number}" if method.pruning_configs else method.name
        ground = _ground(options, run, label)
        for name in ground.weights:
            if name in owners:
                raise InputError(
                    f"{label} and {owners[name]} both choose the layer {name.removesuffix('.weight')}",
                    hint="make op_names narrower, or name the layer in excluded_op_names of one of them",
                )
            owners[name] = label
        if options.pattern_lock:
            locked = locked.merge(_zeros(options, ground, label))
        else:
            pruners.append(Pruner(options, ground))
    return pruners, locked


def _ground(options: PrunerOptions, run: TrainingRun, label: str) -> Ground:
    pattern = options.chosen_pattern
    weights = filtered_weights(run.student, options.chosen())
    layouts, skipped = cut_weights(weights, pattern.blocks)
    for name, why in skipped.items():
        announced.warning("%s stays dense under pattern %s: %s", name, pattern.label, why)
    if not layouts:
        raise InputError(
            f"{label}: none of the {len(weights)} chosen weights can take the pattern {pattern.label}",
            hint="look at op_names, excluded_op_names and pruning_op_types",
        )
    small = min(blocks.dropped for blocks in layouts.values())
    if options.progressive and small < 4:  # noqa: PLR2004 - parts
        raise InputError(
            f"{label}: the progressive mode needs blocks of which 4 weights or more go; those of {pattern.label} lose {small}",
            hint="use the plain mode, or a pattern such as 4x1 or 1xchannel",
        )
    chosen = {name: weights[name] for name in layouts}
    return Ground(chosen, layouts, run.enforced.masks, scheduled(options, run, label))


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


def _zeros(options: PrunerOptions, ground: Ground, label: str) -> Masks:
    masks = {name: (weight.detach() != 0).cpu() for name, weight in ground.weights.items()}
    for name, mask in masks.items():
        if not ground.layouts[name].holds(mask):
            raise InputError(
                f"{label}: the zeros of {name} do not follow the pattern {options.chosen_pattern.label}",
                hint="pattern 1x1 keeps any zeros",
            )
    if all(bool(mask.all()) for mask in masks.values()):
        raise InputError(f"{label}: pattern_lock keeps zeros, and the chosen weights have none")
    return Masks(masks)
