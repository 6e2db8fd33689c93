"""Teacher and student on their way up an encoder, sublayer by sublayer, from cached hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.surgery import Family, masked, shrink
from compressor.prune.fitting import Evidence, SublayerFit, Tuning, best_correction, held_out, kept_columns
from compressor.prune.layerwise import (
    Batch,
    LayerCall,
    Run,
    Sublayer,
    layer_names,
    record,
    replay,
    replay_until,
    resumed,
    token_weights,
    watched,
)
from compressor.prune.sharing import Share


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """What to re-fit, and toward what.

    Attributes:
        student: masks of the model that is re-fitted.
        teacher: masks of the model to come close to; empty = dense.
        tuning: the whole output matrix and its bias, one scale per unit, or nothing. An emptied sublayer's bias is
            re-fitted in any case: it is all that is left.
        token_weights: from a batch to how much each token of the last layer matters, shape (B, T); in the layers below
            every real token counts alike.
        share: of the batches that this process runs; ``evidence`` is that of all.
    """

    student: Masks
    teacher: Masks
    tuning: Tuning
    token_weights: Callable[[Mapping[str, Tensor]], Tensor]
    share: Share = field(default_factory=Share)


@dataclass
class Cached:
    """One batch between two layers. Hidden states rest on the CPU, what the layers are called with on the device.

    Attributes:
        inputs: the batch itself.
        calls: per layer name.
        held: which rows are held out, shape (B,).
        teacher: what the next layer reads in the teacher, shape (B, T, D).
        student: the same in the student.
        wanted: per group of the layer at hand, the teacher's output before LayerNorm, shape (B, T, D).
    """

    inputs: Batch
    calls: Mapping[str, LayerCall]
    held: Tensor
    teacher: Tensor
    student: Tensor
    wanted: dict[str, Tensor] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the batch is run."""
        return self.held.device


class Sweep:
    """Teacher and student on their way up, the layers below done. The student's units are really gone.

    Attributes:
        model: as it comes in; stays as it is.
        family: the table of its architecture.
        task: what to re-fit, and toward what.
        groups: of the model that comes in.
        layers: dotted names, bottom to top.
        token_weights: from a batch and a group to how much each token counts, shape (B, T).
        keep: masks of the student's groups that are not whole.
        student: the model as far as it is pruned and re-fitted.
        batches: the calibration rows between two layers.
        weights: what was re-fitted, by parameter name, in the shape of the model that came in.
        fits: what became of each sublayer.
    """

    def __init__(self, model: nn.Module, family: Family, task: Reconstruction) -> None:
        self.model = model
        self.family = family
        self.task = task
        self.groups = family.groups(model)
        self.layers = layer_names(self.groups)
        self.student = shrink(model, family, task.student)
        self.token_weights = token_weights(self.layers, task.token_weights)
        self.keep = dict(task.student.keep)
        self.batches: list[Cached] = []
        self.weights: dict[str, Tensor] = {}
        self.fits: list[SublayerFit] = []

    @property
    def left(self) -> Mapping[str, PrunableGroup]:
        """The student's groups as they are now, by name."""
        return {group.name: group for group in self.family.groups(self.student)}

    def start(self, batches: Iterable[Batch], run: Run | None = None) -> None:
        """Record the batches of the share and bring teacher and student to the lowest layer.

        Args:
            batches: all of them, on the model's device.
            run: see ``record``.
        """
        first = 0
        for number, batch in enumerate(batches):
            rows = len(batch["attention_mask"])
            if self.task.share.owns(number):
                hidden, calls = record(self.model, self.layers, batch, run)
                held = held_out(first, rows, hidden.device)
                rest = hidden.cpu()
                self.batches.append(Cached(inputs=batch, calls=calls, held=held, teacher=rest, student=rest))
            first += rows

    @torch.no_grad()
    def advance_teacher(self, layer: str) -> None:
        """Run the teacher through a layer and keep what each of its sublayers gives before LayerNorm."""
        own = [group for group in self.groups if group.layer == layer and group.units]
        keep = self.task.teacher.keep
        masks = {group.name: keep[group.name] for group in own if group.name in keep}
        with masked(self.model, own, masks), watched(self.model, own) as seen:
            for batch in self.batches:
                hidden = batch.teacher.to(batch.device)
                batch.teacher = replay(self.model, layer, batch.calls[layer], hidden).cpu()
                batch.wanted = {name: sublayer.before_norm.cpu() for name, sublayer in seen.items()}

    @torch.no_grad()
    def advance_student(self, layer: str) -> None:
        """Run the student through a layer whose sublayers are done."""
        for batch in self.batches:
            hidden = batch.student.to(batch.device)
            batch.student = replay(self.student, layer, batch.calls[layer], hidden).cpu()

    def suffix(self, batch: Cached, layer: str) -> AbstractContextManager[None]:
        """Let the student's forward of this batch start at the layer that it has come to, inside a ``with`` block."""
        return resumed(self.student, batch.calls, layer, batch.student.to(batch.device))

    def empty_evidence(self, group: PrunableGroup) -> Evidence:
        """Return moments of nothing, for the columns that the student has now."""
        consumer: Any = self.student.get_submodule(group.consumer.module)
        columns, device = self.left[group.name].units * group.width, self.batches[0].device
        return Evidence.empty(columns, consumer.out_features, device, intercept=consumer.bias is not None)

    @torch.no_grad()
    def observe(self, group: PrunableGroup, batch: Cached, sublayer: Sublayer, evidence: Evidence) -> None:
        """Add what passed through the student's sublayer in one batch."""
        errors = batch.wanted[group.name].to(batch.device) - sublayer.before_norm
        importance = self.token_weights(batch.inputs, group)
        columns = len(evidence.train.activations)
        evidence.add(sublayer.activations[..., :columns], errors, weights=importance, held=batch.held)

    @torch.no_grad()
    def evidence(self, group: PrunableGroup) -> Evidence:
        """Run the student up to a group's consumer and return the moments of the sublayer."""
        evidence, left = self.empty_evidence(group), self.left[group.name]
        with watched(self.student, [left]) as seen:
            for batch in self.batches:
                hidden = batch.student.to(batch.device)
                replay_until(self.student, left, batch.calls[group.layer], hidden)
                self.observe(group, batch, seen[group.name], evidence)
        return evidence.summed(self.task.share)

    def remove(self, group: PrunableGroup, keep: Tensor, evidence: Evidence) -> Evidence:
        """Remove units of a group that is still whole from the student; return the evidence of what is left.

        Args:
            group: of the model that came in.
            keep: shape (units,), ``True`` = keep.
            evidence: of the whole group.
        """
        weight: Tensor = self.student.get_parameter(f"{group.consumer.module}.weight")
        left = evidence.kept(kept_columns(group, keep).to(weight.device), weight)
        self.student = shrink(self.student, self.family, Masks({group.name: keep}))
        self.keep[group.name] = keep
        return left

    @torch.no_grad()
    def fit(self, group: PrunableGroup, evidence: Evidence) -> None:
        """Correct one sublayer of the student on the student's inputs.

        Args:
            group: of the model that came in.
            evidence: of the columns that are left.
        """
        name = group.consumer.module
        small: Any = self.student.get_submodule(name)  # a Linear, or what is left of one that lost every input
        weight = small.weight if len(evidence.train.activations) else torch.zeros(small.out_features, 0)
        chosen, fit = best_correction(group, self.task.tuning, weight, evidence)
        self.fits.append(fit)
        if chosen is None:
            return
        if weight.shape[1]:
            small.weight.copy_(small.weight.double() + chosen.weight)
            full = self.model.get_parameter(f"{name}.weight").clone()
            full[:, kept_columns(group, self.keep[group.name]).to(full.device)] = small.weight
            self.weights[f"{name}.weight"] = full
        if small.bias is not None and chosen.bias.any():
            small.bias.copy_(small.bias.double() + chosen.bias)
            self.weights[f"{name}.bias"] = small.bias.detach().clone()


def unpruned(groups: Sequence[PrunableGroup]) -> Masks:
    """Return masks that keep every unit."""
    return Masks({group.name: torch.ones(group.units, dtype=torch.bool) for group in groups})
