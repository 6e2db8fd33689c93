"""The numerics of ``fisher``: from gate gradients to masks and re-fitted weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import Masks
from compressor.model.costs import unit_prices
from compressor.plugin import Pruned
from compressor.progress import track
from compressor.prune import Reconstruction, Signals, SublayerFit, gate_gradients, rearrange, reconstruct, search_masks
from compressor_plugins.methods._report import Stopwatch, dense_macs, figures

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_plugins.methods.fisher import Fisher

Gradients = Mapping[str, Tensor]


def prune(method: Fisher, session: Session) -> Pruned:
    """Run the whole method on a session."""
    watch = Stopwatch()
    sequence = method.target.sequence or session.calibration.mean_length
    with watch.phase("importance"):
        gradients = importance_gradients(method, session)
    with watch.phase("search"):
        masks, milder = choose_masks(method, session, gradients, sequence)
    with watch.phase("tuning"):
        weights, fits = tune(method, session, masks, milder)
    return Pruned(masks, weights, figures(session, masks, fits, sequence) | {"seconds": watch.seconds})


def importance_gradients(method: Fisher, session: Session) -> Gradients:
    """Return gate gradients per group, shape (rows, units): their squares, summed over rows, are the importance."""
    batches = track(session.calibration.batches(session.device), "Importance", total=len(session.calibration))
    signals = _projections(method, session) if session.task.label_free else _losses(session)
    gradients = gate_gradients(session.model, session.groups, batches, signals)
    if method.importance == "batch-mean":
        size = session.calibration.batch_size
        gradients = {
            name: torch.stack([part.mean(dim=0) for part in torch.split(gradient, size)])
            for name, gradient in gradients.items()
        }
    return {name: gradient.flatten(0, 1) for name, gradient in gradients.items()}


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


def choose_masks(method: Fisher, session: Session, gradients: Gradients, sequence: float) -> tuple[Masks, Masks]:
    """Return the masks at the target, and those of the teacher's milder search at its square root.

    The target is a fraction of the *dense* model, also where the session's model was pruned before.
    """
    groups, keep = session.groups, method.target.macs or 1.0
    dense = dense_macs(session, sequence)
    prices = unit_prices(session.model, groups, sequence)
    scores = {name: gradient.double().square().sum(dim=0) for name, gradient in gradients.items()}
    masks = search_masks(groups, scores, prices=prices, budget=keep * dense)
    milder = search_masks(groups, scores, prices=prices, budget=math.sqrt(keep) * dense)
    return (rearranged(masks, gradients) if method.rearrange else masks), milder


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
        teacher=milder if method.teacher == "milder" else Masks({}),
        tuning=method.tuning,
        token_weights=session.task.token_weights,
    )
    return reconstruct(session.model, session.family, session.calibration.batches(session.device), task)
