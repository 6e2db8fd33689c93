"""The numerics of ``gradual``: pruners hooked into a training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import TrainerCallback

from compressor.model.masks import Masks
from compressor.plugin import Pruned
from compressor.train import Extension, TrainingRun
from compressor_plugins.methods._gradual_setup import set_up
from compressor_plugins.methods._group_lasso import shrink_blocks

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods._gradual_pruner import Pruner
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
    metrics = {
        "pruners": figures,
        "locked": len(locked.keep),
        "training": {"makes": "a pruned model", **trained.figures},
    }
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
                for name, blocks in pruner.ground.layouts.items():
                    shrink_blocks(pruner.ground.weights[name], blocks, rate * pruner.options.reg_coeff)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the pruners' states."""
        return {f"{number}/{k}": v for number, one in enumerate(self.pruners) for k, v in one.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what ``state_dict`` gave."""
        for number, pruner in enumerate(self.pruners):
            start = f"{number}/"
            pruner.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
