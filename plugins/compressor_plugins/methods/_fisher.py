"""The numerics of ``fisher``: from gate gradients to masks and re-fitted weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import Masks
from compressor.plugin import Pruned
from compressor.progress import announced, track
from compressor.prune import Reconstruction, Share, Signals, SublayerFit, gate_gradients, rearrange, reconstruct
from compressor_plugins.methods._budget import Budget, sequence_of
from compressor_plugins.methods._latency import LatencyBudget, budget_of
from compressor_plugins.methods._report import Stopwatch, figures

if TYPE_CHECKING:
    from compressor.model.masks import Scores
    from compressor.run.session import Session
    from compressor_plugins.methods.fisher import Fisher

Gradients = Mapping[str, Tensor]


def prune(method: Fisher, session: Session) -> Pruned:
    """Run the whole method on a session."""
    watch = Stopwatch()
    sequence = sequence_of(method.target, session)
    with watch.phase("budget"):
        budget = budget_of(method.target, session, sequence)
    with watch.phase("importance"):
        gradients = importance_gradients(method, session)
    with watch.phase("search"):
        masks, milder = choose_masks(method, session, gradients, budget)
    _warn_of_emptied_layers(session, masks, method.floor)
    with watch.phase("tuning"):
        weights, fits = tune(method, session, masks, milder)
    metrics = figures(session, masks, fits, sequence) | budget.figures(session, masks)
    return Pruned(masks, weights, metrics | {"seconds": watch.seconds})


def importance_gradients(method: Fisher, session: Session) -> Gradients:
    """Return gate gradients per group, shape (rows, units): their squares, summed over rows, are the importance."""
    calibration, size = session.calibration, session.calibration.batch_size
    alone = session.task.label_free  # projections are drawn for one batch after another
    share = Share() if alone else share_of(method, session)
    batches = share.of(calibration.batches(session.device))
    batches = track(batches, "Importance", total=share.size(len(calibration)))
    signals = _projections(method, session) if alone else _losses(session)
    found = gate_gradients(session.model, session.groups, batches, signals)
    gradients = {name: share.joined(part, rows=len(calibration.rows), batch_size=size) for name, part in found.items()}
    if method.importance == "batch-mean":
        gradients = {
            name: torch.stack([part.mean(dim=0) for part in torch.split(gradient, size)])
            for name, gradient in gradients.items()
        }
    return {name: gradient.flatten(0, 1) for name, gradient in gradients.items()}


def share_of(method: Fisher, session: Session) -> Share:
    """Return the batches that this process runs, of several."""
    return Share.of_run(len(session.calibration), joint=method.joint)


def _losses(session: Session) -> Signals:
    task = session.task
    return lambda raw, batch: task.sample_losses(task.output(raw, batch), batch).unsqueeze(1)


def _projections(method: Fisher, session: Session) -> Signals:
    """Return random projections of the output: a fidelity loss has no gradient at the dense model."""
    generator = np.random.default_rng(session.seed)

    def signals(raw: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        z = session.task.output(raw, batch)
        return session.task.curvature(z, draws=method.projections, generator=generator)

    return signals


def choose_masks(
    method: Fisher, session: Session, gradients: Gradients, budget: Budget | LatencyBudget
) -> tuple[Masks, Masks]:
    """Return the masks at the target, and those of the teacher's milder search at its square root."""
    squares = {name: gradient.double().square().sum(dim=0) for name, gradient in gradients.items()}
    scores = floored(squares, method.floor)
    masks = budget.masks(session, scores, budget.keep)
    milder = budget.masks(session, scores, math.sqrt(budget.keep)) if method.teacher == "milder" else Masks({})
    return (rearranged(masks, gradients) if method.rearrange else masks), milder


def _warn_of_emptied_layers(session: Session, masks: Masks, floor: float) -> None:
    """Say which layers lost everything: such a model often answers the same to every row."""
    left: Counter[str] = Counter()
    for group in session.groups:
        if group.units:
            left[group.layer] += int(masks.keep[group.name].sum())
    gone = [layer for layer, units in left.items() if not units]
    if gone:
        advice = "the budget has no room for the floor" if floor else "floor: 0.01 keeps a little of every layer"
        announced.warning("fisher leaves no head and no neuron in %s; %s", ", ".join(gone), advice)


def floored(scores: Scores, floor: float) -> Scores:
    """Raise the top units of every group above all others, so that any search keeps them first.

    Args:
        scores: per group name, shape (units,), not negative.
        floor: fraction of every group's units, rounded up, to raise; 0 = none.
    """
    above = 2.0 * sum(float(values.sum()) for values in scores.values()) or 1.0  # of the scores' own size
    raised = {name: values.clone() for name, values in scores.items()}
    for values in raised.values():
        values[values.topk(math.ceil(floor * len(values) - 1e-9)).indices] += above
    return raised


def rearranged(masks: Masks, gradients: Gradients) -> Masks:
    """Exchange units inside every group; counts stay."""
    result = {}
    for name, keep in masks.keep.items():
        gradient = gradients[name].double().numpy()
        result[name] = torch.ones_like(keep)
        result[name][rearrange(gradient.T @ gradient, (~keep).nonzero().flatten().tolist())] = False
    return Masks(result)


def tune(method: Fisher, session: Session, masks: Masks, milder: Masks) -> tuple[dict[str, Tensor], list[SublayerFit]]:
    """Re-fit the output projections under the masks; return weights by name and what became of each sublayer."""
    if method.tuning == "none":
        return {}, []
    task = Reconstruction(
        student=masks,
        teacher=milder,
        tuning=method.tuning,
        token_weights=session.task.token_weights,
        share=share_of(method, session),
    )
    return reconstruct(session.model, session.family, session.calibration.batches(session.device), task)
