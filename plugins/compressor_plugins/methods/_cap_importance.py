"""How much the loss depends on every head and neuron, to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import collate
from compressor.progress import track
from compressor.prune import Share, consumer_inputs, frozen

if TYPE_CHECKING:
    from compressor.model import PrunableGroup
    from compressor.train import TrainingRun


def importance(
    run: TrainingRun, groups: Sequence[PrunableGroup], *, per_sample: bool, samples: int | None
) -> dict[str, Tensor]:
    """Return the importance of every unit: per group name, shape (units,), float64, on the CPU.

    Michel et al. 2019 (https://arxiv.org/abs/1905.10650): the sum, over batches, of the absolute gradient of the batch's mean
    loss for the unit's gate; or the sum over rows of what each contributes to it. The loss is the training's whole one, without
    dropout.

    Args:
        run: gives the model, the loss and the rows, in batches of its size.
        groups: of the model; an emptied one has shape (0,).
        per_sample: the absolute values of rows, not of batches.
        samples: rows to draw, by seed; None = all.
    """
    order = np.random.default_rng(run.session.seed).permutation(len(run.rows))[:samples]
    batches = [order[start : start + run.options.batch_size] for start in range(0, len(order), run.options.batch_size)]
    share = Share.of_run(len(batches), joint=True)
    totals = {group.name: torch.zeros(group.units, dtype=torch.float64) for group in groups}
    objective, device = run.objective.eval(), run.session.device
    with frozen(run.student), consumer_inputs(run.student, groups) as read, torch.enable_grad():
        for places in track(share.of(batches), "importance", total=share.size(len(batches))):
            batch = collate([run.rows[int(place)] for place in places], run.session.tokenizer)
            loss = objective(**{name: tensor.to(device) for name, tensor in batch.items()})["loss"]
            for name, products in gate_gradients(loss, groups, read).items():
                values = products.abs().sum(dim=0) if per_sample else products.sum(dim=0).abs()
                totals[name] += values.double().cpu()
    return {name: share.summed(total) for name, total in totals.items()}


def gate_gradients(loss: Tensor, groups: Sequence[PrunableGroup], read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what every row contributes to the gradients of a batch's mean loss for the gates, shape (B, units) per group.

    Args:
        loss: a scalar, computed inside ``consumer_inputs``.
        groups: those that were watched; emptied ones are left out.
        read: what ``consumer_inputs`` collected.
    """
    watched = [group for group in groups if group.name in read]
    if not watched:
        return {}
    inputs = [read[group.name] for group in watched]
    found = {}
    for group, values, gradient in zip(watched, inputs, torch.autograd.grad(loss, inputs), strict=True):
        summed = (values.detach() * gradient).sum(dim=1)
        found[group.name] = summed.reshape(len(summed), group.units, group.width).sum(dim=2)
    return found


def normalized(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scores of every group divided by their norm."""
    return {name: values / (values.norm() + 1e-20) for name, values in scores.items()}
