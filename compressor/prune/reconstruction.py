"""Re-fit what is left of a pruned encoder, sublayer by sublayer, bottom to top.

Each sublayer's output projection is corrected so that the student's output before LayerNorm comes close to the
teacher's, on the student's own inputs: drift of the layers below is undone too. Teacher and student are the same model
under different masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.surgery import Family, masked, shrink
from compressor.progress import track
from compressor.prune.layerwise import LayerCall, layer_names, record, replay, watched
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

Tuning = Literal["weights", "scales", "none"]
Solver = Callable[[float], Correction]

RIDGES = (1e-7, 1e-5, 1e-3, 1e-2, 1e-1)
"""Candidates, relative to the mean diagonal of the normal matrix; held-out rows choose."""
HELD_OUT = 8
"""One row in so many is kept from the fit: it chooses the ridge, and whether a sublayer's correction is taken."""
FALLBACKS: Mapping[Tuning, tuple[Tuning, ...]] = {"weights": ("weights", "scales"), "scales": ("scales",), "none": ()}


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
    """

    student: Masks
    teacher: Masks
    tuning: Tuning
    token_weights: Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class SublayerFit:
    """What became of one sublayer; errors are squared, per token, over the held-out rows."""

    group: str
    accepted: Tuning | Literal["bias"]
    ridge: float | None
    error_before: float
    error_after: float


@dataclass
class _Cached:
    """One batch between two layers. Hidden states rest on the CPU, what the layers are called with on the device."""

    calls: Mapping[str, LayerCall]
    real: Tensor
    last: Tensor
    held: Tensor
    teacher: Tensor
    student: Tensor
    wanted: dict[str, Tensor] = field(default_factory=dict)


def reconstruct(
    model: nn.Module, family: Family, batches: Iterable[Mapping[str, Tensor]], task: Reconstruction
) -> tuple[dict[str, Tensor], list[SublayerFit]]:
    """Return new output weights and biases by parameter name, in full shape, and what was done to each sublayer.

    A correction that does not lower the error on held-out rows is dropped for a weaker one, and the sweep goes on.
    Two forward passes of the model and three of what is left of it.

    Args:
        model: in eval mode; stays as it is.
        family: the table of its architecture.
        batches: on the model's device; with fewer than 8 rows, the rows that are fitted judge the fit too.
        task: what to re-fit.
    """
    sweep = _Sweep(model, family, task)
    with torch.no_grad():
        sweep.start(batches)
        for layer in track(sweep.layers, "Tuning layers"):
            own = [group for group in sweep.groups if group.layer == layer and group.units]
            sweep.advance_teacher(layer, own)
            for group in own:
                sweep.fit(group)
            if layer != sweep.layers[-1]:
                sweep.advance_student(layer)
    return sweep.weights, sweep.fits


class _Sweep:
    """Teacher and student on their way up, the layers below done. The student's units are really gone."""

    def __init__(self, model: nn.Module, family: Family, task: Reconstruction) -> None:
        self.model = model
        self.task = task
        self.groups = family.groups(model)
        self.layers = layer_names(self.groups)
        self.student = shrink(model, family, task.student)
        self.student_groups = {group.name: group for group in family.groups(self.student)}
        self.batches: list[_Cached] = []
        self.weights: dict[str, Tensor] = {}
        self.fits: list[SublayerFit] = []

    def start(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Record every batch and bring teacher and student to the lowest layer."""
        first = 0
        for batch in batches:
            hidden, calls = record(self.model, self.layers, batch)
            rows = torch.arange(first, first + len(hidden), device=hidden.device)
            first += len(hidden)
            self.batches.append(
                _Cached(
                    calls=calls,
                    real=batch["attention_mask"],
                    last=self.task.token_weights(batch) * batch["attention_mask"],
                    held=rows % HELD_OUT == HELD_OUT - 1,
                    teacher=hidden.cpu(),
                    student=hidden.cpu(),
                )
            )

    def advance_teacher(self, layer: str, own: Sequence[PrunableGroup]) -> None:
        """Run the teacher through a layer and keep what each sublayer should give before LayerNorm."""
        masks = {
            group.name: self.task.teacher.keep[group.name] for group in own if group.name in self.task.teacher.keep
        }
        with masked(self.model, own, masks), watched(self.model, own) as seen:
            for batch in self.batches:
                hidden = batch.teacher.to(batch.real.device)
                batch.teacher = replay(self.model, layer, batch.calls[layer], hidden).cpu()
                batch.wanted = {name: sublayer.before_norm.cpu() for name, sublayer in seen.items()}

    def advance_student(self, layer: str) -> None:
        """Run the student through a layer whose sublayers are done."""
        for batch in self.batches:
            hidden = batch.student.to(batch.real.device)
            batch.student = replay(self.student, layer, batch.calls[layer], hidden).cpu()

    def fit(self, group: PrunableGroup) -> None:
        """Correct one sublayer of the student on the student's inputs."""
        name = group.consumer.module
        small: Any = self.student.get_submodule(name)  # a Linear, or what is left of one that lost every input
        weight = small.weight if self.student_groups[group.name].units else torch.zeros(small.out_features, 0)
        train, held = self._moments(group, columns=weight.shape[1])
        chosen, fit = _choose(group, self.task, weight, train, held if held.weight else train)
        self.fits.append(fit)
        if chosen is None:
            return
        if weight.shape[1]:
            small.weight.copy_(small.weight.double() + chosen.weight)
            full = self.model.get_parameter(f"{name}.weight").clone()
            full[:, kept_columns(group, self.task.student.keep[group.name]).to(full.device)] = small.weight
            self.weights[f"{name}.weight"] = full
        if small.bias is not None and chosen.bias.any():
            small.bias.copy_(small.bias.double() + chosen.bias)
            self.weights[f"{name}.bias"] = small.bias.detach().clone()

    def _moments(self, group: PrunableGroup, *, columns: int) -> tuple[Moments, Moments]:
        """Run the student through a layer; return the moments of the rows to fit and of the held-out ones."""
        outputs, device = self.batches[0].student.shape[-1], self.batches[0].real.device
        both = Moments(columns, outputs, device), Moments(columns, outputs, device)
        with watched(self.student, [self.student_groups[group.name]]) as seen:
            for batch in self.batches:
                replay(self.student, group.layer, batch.calls[group.layer], batch.student.to(device))
                sublayer = seen[group.name]
                errors = batch.wanted[group.name].to(device) - sublayer.before_norm
                importance = batch.last if group.layer == self.layers[-1] else batch.real
                for moments, rows in zip(both, (~batch.held, batch.held), strict=True):
                    tokens = (importance > 0) & rows.unsqueeze(1)
                    moments.add(sublayer.activations[tokens][:, :columns], errors[tokens], importance[tokens])
        return both


def kept_columns(group: PrunableGroup, keep: Tensor) -> Tensor:
    """Return the indices of the consumer's columns that a mask of shape (units,) keeps."""
    return keep.repeat_interleave(group.width).nonzero().flatten()


def _choose(
    group: PrunableGroup, task: Reconstruction, weight: Tensor, train: Moments, judge: Moments
) -> tuple[Correction | None, SublayerFit]:
    """Return the first correction, from strong to weak, that lowers the judge's error, at its best ridge."""
    before = residual(judge)
    for tuning, solve in _solvers(group, task, weight, train):
        tried = {ridge: solve(ridge) for ridge in (RIDGES if tuning != "bias" else (0.0,))}
        errors = {ridge: residual(judge, correction) for ridge, correction in tried.items()}
        best = min(errors, key=errors.__getitem__)
        if errors[best] < before:
            return tried[best], SublayerFit(group.name, tuning, best, before, errors[best])
    return None, SublayerFit(group.name, "none", None, before, before)


def _solvers(
    group: PrunableGroup, task: Reconstruction, weight: Tensor, train: Moments
) -> list[tuple[Tuning | Literal["bias"], Solver]]:
    if not weight.shape[1]:
        return [("bias", lambda _: solve_bias(train))]
    solvers: dict[Tuning, Solver] = {
        "weights": lambda ridge: solve_weights(train, ridge=ridge),
        "scales": lambda ridge: solve_scales(train, weight, width=group.width, ridge=ridge),
    }
    return [(tuning, solvers[tuning]) for tuning in FALLBACKS[task.tuning]]
