"""One pruner at work: its layers, its scores, its events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.model.blocks import Blocks
from compressor.model.masks import Masks
from compressor.plugin import read_scores
from compressor.prune import Schedule, partway, select_masks, sparsity_at
from compressor_plugins.methods._one_shot import selection_of

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor_plugins.methods._gradual_options import PrunerOptions

PARTS = 4
"""In which newly doomed weights go between two events of the progressive mode."""
SCORES, BEFORE, EVENTS = "scores/", "before/", "events"


@dataclass(frozen=True)
class Ground:
    """What a pruner works on.

    Attributes:
        weights: parameters in training, by name, shape (out, in).
        layouts: how each is cut.
        held: masks of earlier steps, of any weights: what they remove stays removed.
        schedule: of the events.
    """

    weights: Mapping[str, Tensor]
    layouts: Mapping[str, Blocks]
    held: Masks
    schedule: Schedule


class Pruner:
    """Scores at every optimizer step, masks at the steps of its schedule.

    Attributes:
        options: with the method's own filled in.
        ground: what it works on.
        masks: of the last event, ``True`` = keep, by parameter name; at first those of earlier steps.
        events: (step, sparsity asked for, sparsity reached) of every event so far.
    """

    def __init__(self, options: PrunerOptions, ground: Ground) -> None:
        self.options, self.ground = options, ground
        self.shapes = {name: tuple(one.shape) for name, one in ground.weights.items()}
        self.criterion = options.criterion.start(self.shapes)
        whole = {name: torch.ones(one.shape, dtype=torch.bool) for name, one in ground.weights.items()}
        held = {name: mask.cpu() for name, mask in ground.held.keep.items() if name in whole}
        self.held = self.masks = Masks(whole).merge(Masks(held))
        self.events: list[tuple[int, float, float]] = []

    @property
    def initial(self) -> float:
        """What earlier steps removed."""
        return self.held.sparsity

    @property
    def final(self) -> float:
        """What is removed in the end."""
        return max(self.options.sparsity, self.initial)

    def observe(self) -> None:
        """Show the criterion weights and gradients, summed over a batch's parts, before the optimizer moves."""
        if self.options.criterion.needs:
            weights = self.ground.weights
            gradients = {name: one.grad for name, one in weights.items() if one.grad is not None}
            self.criterion.observe(weights=weights, gradients=gradients, activations={})

    def masks_at(self, step: int) -> Masks | None:
        """Return the masks in force from a step on, or None where they stay as they are.

        Raises:
            InputError: something must go, and no gradient was seen yet, or none but zeros.
        """
        schedule = self.ground.schedule
        if (progress := schedule.progress(step)) is not None:
            asked = self._asked(progress)
            if progress > 0:  # the first event of several prunes nothing
                self.masks = self._selected(asked, step)
            self.events.append((step, asked, self.masks.sparsity))
            return self.masks
        part = schedule.substep(step, parts=PARTS) if self.options.progressive else None
        if part is None:
            return None
        following = step + schedule.frequency - (step - schedule.start) % schedule.frequency
        after = self._selected(self._asked(schedule.progress(following) or 0.0), step)
        scores = self._scores()
        moving = {name: self.masks.keep[name] for name in scores}
        after = Masks({name: after.keep[name] for name in scores})
        return Masks({**self.masks.keep, **partway(Masks(moving), after, scores, part / PARTS).keep})

    def _asked(self, progress: float) -> float:
        return sparsity_at(self.options.sparsity_decay_type, progress, self.final, initial=self.initial)

    def _selected(self, sparsity: float, step: int) -> Masks:
        if not self.options.criterion.needs:  # scores of the weights as they are now
            self.criterion.observe(weights=self.ground.weights, gradients={}, activations={})
        scores = self._scores()
        if not any(bool(seen.any()) for seen in self.criterion.scores().values()):
            raise InputError(
                f"gradual: weights must go at step {step}, and {self.options.criterion.name} has seen no gradient yet but zeros",
                hint="give start_step 1, sparsity_warm_epochs, or more steps than one pruning_frequency; dropout or the loss task, "
                "where the model still equals its teacher; or criterion magnitude",
            )
        layouts = {name: self.ground.layouts[name] for name in scores}
        chosen = select_masks(scores, layouts, sparsity, selection_of(self.options).at(sparsity, final=self.final))
        return Masks({**self.held.keep, **{name: mask & self.held.keep[name] for name, mask in chosen.keep.items()}})

    def _scores(self) -> Scores:
        """Return the scores; below all others where an earlier step pruned. Weights that get no gradient have none."""
        found = {}
        for name, scores in read_scores(self.options.criterion, self.criterion, self.shapes).items():
            found[name] = scores.masked_fill(~self.held.keep[name].to(scores.device), float(scores.min()) - 1.0)
        return {name: found[name] for name in self.ground.layouts if name in found}

    def state_dict(self) -> dict[str, Tensor]:
        """Return scores, masks and events."""
        return {
            **{SCORES + name: value for name, value in self.criterion.state_dict().items()},
            **{BEFORE + name: mask for name, mask in self.masks.keep.items()},
            EVENTS: torch.tensor(self.events, dtype=torch.float64).reshape(-1, 3),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from saved scores, masks and events."""
        self.criterion.load_state_dict(_below(SCORES, state))
        self.masks = Masks(_below(BEFORE, state))
        self.events = [(int(step), asked, reached) for step, asked, reached in state[EVENTS].tolist()]

    def figures(self) -> dict[str, object]:
        """Return what went, as plain data."""
        kept = self.masks.keep
        return {
            "pattern": self.options.chosen_pattern.label,
            "criterion": self.options.criterion.name,
            "asked": self.final,
            "removed": sum(int((~mask).sum()) for mask in kept.values()),
            "of": sum(mask.numel() for mask in kept.values()),
            "ratio": self.masks.sparsity,
            "layers": {name.removesuffix(".weight"): 1 - float(mask.float().mean()) for name, mask in kept.items()},
            "events": [{"step": step, "asked": asked, "reached": reached} for step, asked, reached in self.events],
        }


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
