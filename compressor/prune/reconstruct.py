"""Re-fit what is left of a pruned encoder, sublayer by sublayer, bottom to top.

Each sublayer's output projection is corrected so that the student's output before LayerNorm comes close to the
teacher's, on the student's own inputs: drift of the layers below is undone too. Teacher and student are the same model
under different masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.surgery import masked
from compressor.progress import track
from compressor.prune.replay import LayerCall, layer_names, record, replay, watched
from compressor.prune.solve import Correction, Moments, residual, solve_bias, solve_scales, solve_weights

Tuning = Literal["weights", "scales", "none"]
Solver = Callable[[float], Correction]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
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
        tuning: the whole output matrix, one scale per unit, or nothing.
        bias: re-fit the output bias too. Emptied sublayers always are: their bias is all they have.
        token_weights: from a batch to how much each token of the last layer matters, shape (B, T); in the layers below
            every real token counts alike.
    """

    student: Masks
    teacher: Masks
    tuning: Tuning
    bias: bool
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
    model: nn.Module, groups: Sequence[PrunableGroup], batches: Iterable[Mapping[str, Tensor]], task: Reconstruction
) -> tuple[dict[str, Tensor], list[SublayerFit]]:
    """Return new output weights and biases by parameter name, in full shape, and what was done to each sublayer.

    A correction that does not lower the error on held-out rows is dropped for a weaker one, and the sweep goes on.
    About four forward passes over the batches.

    Args:
        model: in eval mode; stays as it is.
        groups: of this model, bottom to top, attention before FFN; emptied ones are skipped.
        batches: on the model's device; with fewer than 8 rows, the rows that are fitted judge the fit too.
        task: what to re-fit.
    """
    layers = layer_names(groups)
    sweep = _Sweep(model, task, last_layer=layers[-1])
    with torch.no_grad():
        sweep.start(layers, batches)
        for layer in track(layers, "Tuning layers"):
            own = [group for group in groups if group.layer == layer and group.units]
            sweep.advance_teacher(layer, own)
            for group in own:
                sweep.fit(layer, own, group)
            sweep.advance_student(layer, own)
    return sweep.weights, sweep.fits


class _Sweep:
    """Teacher and student on their way up, the layers below done."""

    def __init__(self, model: nn.Module, task: Reconstruction, *, last_layer: str) -> None:
        self.model = model
        self.task = task
        self.last_layer = last_layer
        self.batches: list[_Cached] = []
        self.weights: dict[str, Tensor] = {}
        self.fits: list[SublayerFit] = []

    def start(self, layers: Sequence[str], batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Record every batch and bring teacher and student to the lowest layer."""
        first = 0
        for batch in batches:
            hidden, calls = record(self.model, layers, batch)
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
        with masked(self.model, own, _of(self.task.teacher, own)), watched(self.model, own) as seen:
            for batch in self.batches:
                hidden = batch.teacher.to(batch.real.device)
                batch.teacher = replay(self.model, layer, batch.calls[layer], hidden).cpu()
                batch.wanted = {name: sublayer.before_norm.cpu() for name, sublayer in seen.items()}

    def advance_student(self, layer: str, own: Sequence[PrunableGroup]) -> None:
        """Run the student through a layer whose sublayers are done."""
        with masked(self.model, own, _of(self.task.student, own)):
            for batch in self.batches:
                hidden = batch.student.to(batch.real.device)
                batch.student = replay(self.model, layer, batch.calls[layer], hidden, self.weights).cpu()

    def fit(self, layer: str, own: Sequence[PrunableGroup], group: PrunableGroup) -> None:
        """Correct one sublayer on the student's inputs."""
        consumer = self.model.get_submodule(group.consumer.module)
        weight: Tensor = consumer.weight  # type: ignore[assignment]  # an attribute of nn.Linear
        offset: Tensor | None = consumer.bias  # type: ignore[assignment]  # the same
        columns = kept_columns(group, self.task.student.keep[group.name]).to(weight.device)
        train, held = self._moments(layer, own, group, columns)
        chosen, fit = _choose(group, self.task, weight[:, columns], train, held if held.weight else train)
        self.fits.append(fit)
        if chosen is None:
            return
        tuned = weight.double()
        tuned[:, columns] += chosen.weight
        self.weights[f"{group.consumer.module}.weight"] = tuned.to(weight.dtype)
        if offset is not None:
            self.weights[f"{group.consumer.module}.bias"] = (offset.double() + chosen.bias).to(offset.dtype)

    def _moments(
        self, layer: str, own: Sequence[PrunableGroup], group: PrunableGroup, columns: Tensor
    ) -> tuple[Moments, Moments]:
        """Run the student through a layer; return the moments of the rows to fit and of the held-out ones."""
        outputs = self.batches[0].student.shape[-1]
        both = Moments(len(columns), outputs, columns.device), Moments(len(columns), outputs, columns.device)
        with masked(self.model, own, _of(self.task.student, own)), watched(self.model, [group]) as seen:
            for batch in self.batches:
                replay(self.model, layer, batch.calls[layer], batch.student.to(columns.device), self.weights)
                sublayer = seen[group.name]
                errors = batch.wanted[group.name].to(columns.device) - sublayer.before_norm
                importance = batch.last if layer == self.last_layer else batch.real
                for moments, rows in zip(both, (~batch.held, batch.held), strict=True):
                    tokens = (importance > 0) & rows.unsqueeze(1)
                    moments.add(sublayer.activations[tokens][:, columns], errors[tokens], importance[tokens])
        return both


def kept_columns(group: PrunableGroup, keep: Tensor) -> Tensor:
    """Return the indices of the consumer's columns that a mask of shape (units,) keeps."""
    return keep.repeat_interleave(group.width).nonzero().flatten()


def _of(masks: Masks, groups: Sequence[PrunableGroup]) -> dict[str, Tensor]:
    return {group.name: masks.keep[group.name] for group in groups if group.name in masks.keep}


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
        "weights": lambda ridge: solve_weights(train, ridge=ridge, bias=task.bias),
        "scales": lambda ridge: solve_scales(train, weight, width=group.width, ridge=ridge, bias=task.bias),
    }
    return [(tuning, solvers[tuning]) for tuning in FALLBACKS[task.tuning]]
