"""CAP's back ends for single weights: masks that move with their scores through one training."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import TrainerCallback

from compressor.errors import InputError
from compressor.model import Masks, filtered_weights
from compressor.model.weights import EMBEDDINGS, head_name
from compressor.plugin import Pruned
from compressor.prune import cubic_ramp
from compressor.train import Extension, ParameterGroup, TrainingRun
from compressor_plugins.methods._cap_masks import masked_weights, original, soft_mask, top_mask

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods._cap_masks import MaskedWeight
    from compressor_plugins.methods.cap import Cap

IN_A_LAYER = re.compile(r"(^|\.)layers?\.\d+\.")


def chosen_weights(method: Cap, model: nn.Module) -> list[str]:
    """Return the parameter names of the weights that the method prunes: of the encoder's layers, and the head's if asked for.

    Raises:
        InputError: there are none.
    """
    head = f"{head_name(model)}.weight"
    names = [name for name in filtered_weights(model, method.chosen()) if IN_A_LAYER.search(name) or name == head]
    if not names:
        raise InputError(
            "cap: no layer of the encoder is chosen",
            hint="look at op_names and excluded_op_names: regular expressions, searched in dotted names",
        )
    return names


def prune(method: Cap, begun: Session) -> Pruned:
    """Run the method on a session whose model is the one to begin with."""
    run = TrainingRun(begun, method.train)
    held = run.enforced.masks
    names = chosen_weights(method, run.student)
    run.enforced.hold(Masks({name: mask for name, mask in held.keep.items() if name not in names}))
    if method.freeze_embeddings:
        for name, parameter in run.student.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and not EMBEDDINGS.search(name))
    masks = masked_weights(run.student, held.keep, names, learned=method.backend != "magnitude")
    scoring = Scoring(method, run, masks)
    scores = [one.scores for one in masks.values() if one.scores is not None]
    trained = run.fit(
        Extension(
            callbacks=[scoring],
            states={"scoring": scoring},
            key=json.dumps(method.options(), sort_keys=True),
            groups=[ParameterGroup(scores, method.score_learning_rate)] if scores else [],
            penalty=scoring.penalty if method.backend == "soft-movement" else None,
        )
    )
    scoring.move(run.steps)
    kept = {name: one.mask.cpu() for name, one in masks.items()}
    for name in names:
        parametrize.remove_parametrizations(trained.model.get_submodule(name.removesuffix(".weight")), "weight")
    metrics = {
        "backend": method.backend,
        "removed": sum(int((~mask).sum()) for mask in kept.values()),
        "of": sum(mask.numel() for mask in kept.values()),
        "ratio": Masks(kept).sparsity,
        "layers": {name.removesuffix(".weight"): 1 - float(mask.float().mean()) for name, mask in kept.items()},
        "training": {"makes": "a pruned model", **trained.figures},
    }
    weights = {name: value.detach() for name, value in trained.model.named_parameters()}
    return Pruned(Masks(kept), weights=weights, metrics=metrics)


class Scoring(TrainerCallback):
    """Moves the masks at the start of every step, along the schedule.

    Attributes:
        method: with its options.
        run: the training.
        masks: by parameter name.
        cut: of a global scope, the lowest score that stays, as of the last look at all of them.
        amount: fraction that stays, or of soft movement the threshold, as of now.
    """

    def __init__(self, method: Cap, run: TrainingRun, masks: Mapping[str, MaskedWeight]) -> None:
        self.method, self.run, self.masks = method, run, masks
        self.cut, self.amount = -torch.inf, 1.0
        self._ramp(0)

    def _ramp(self, step: int) -> float:
        """Return the fraction that stays at a step, or the threshold.

        Raises:
            InputError: the training is shorter than both ends of the schedule.
        """
        method, soft = self.method, self.method.backend == "soft-movement"
        sparsity = (method.target.sparsity if method.target else None) or 0.0
        ends = (0.0, method.final_threshold) if soft else (1.0, 1.0 - sparsity)
        first, last = (times * self.run.warmup_steps for times in (method.initial_warmup, method.final_warmup))
        if first + last >= self.run.steps:
            raise InputError(
                f"cap: pruning from step {first:g} to {self.run.steps - last:g} does not lie within the {self.run.steps} steps",
                hint="look at train.warmup, initial_warmup, final_warmup and train.epochs",
            )
        return cubic_ramp(step, start=first, end=self.run.steps - last, initial=ends[0], final=ends[1])

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002 - transformers'
        """Move the masks."""
        self.move(state.global_step)

    def move(self, step: int) -> None:
        """Choose the masks of a step."""
        self.amount = self._ramp(step)
        ranks = {name: one.ranks(original(self.run.student, name)) for name, one in self.masks.items()}
        if self.method.backend == "soft-movement":
            chosen = {name: soft_mask(values, self.amount) for name, values in ranks.items()}
        elif self.method.pruning_scope != "global":
            chosen = {name: top_mask(values, self._count(values)) for name, values in ranks.items()}
        elif step % self.method.refresh and step < self.run.steps:
            chosen = {name: values >= self.cut for name, values in ranks.items()}
        else:
            chosen = self._over_all(ranks)
        for name, one in self.masks.items():
            one.mask.copy_(chosen[name] & one.held)

    def _count(self, values: Tensor) -> int:
        """Return how many of these stay; ``1 - 0.9`` is a little less than a tenth, and means it."""
        return int(round(self.amount * values.numel(), 6))

    def _over_all(self, ranks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return masks of one cut over all weights, and remember it."""
        flat = torch.cat([values.flatten() for values in ranks.values()])
        keep = top_mask(flat, self._count(flat))
        self.cut = float(flat[keep].min()) if bool(keep.any()) else torch.inf
        parts = torch.split(keep, [values.numel() for values in ranks.values()])
        return {name: part.reshape(values.shape) for (name, values), part in zip(ranks.items(), parts, strict=True)}

    def penalty(self) -> Tensor:
        """Return the mean sigmoid of the scores, first of each weight, times lambda as of now (Sanh et al., section 4)."""
        means = [one.scores.sigmoid().mean() for one in self.masks.values() if one.scores is not None]
        weight = (self.method.final_lambda or 0.0) * self.amount / self.method.final_threshold
        return weight * torch.stack(means).mean()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the last cut over all weights; everything else is in the weights, and in the step."""
        return {"cut": torch.tensor([self.cut], dtype=torch.float64)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved cut."""
        self.cut = float(state["cut"])
