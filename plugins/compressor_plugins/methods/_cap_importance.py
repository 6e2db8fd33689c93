"""How much the loss depends on every head and neuron, to first order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.model import collate
from compressor.progress import track
from compressor.prune import Share, consumer_inputs, frozen, gate_products

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
            shares = (loss / len(places)).expand(len(places), 1)  # the loss is a mean over rows, and rows do not mix
            for name, products in gate_products(shares, groups, read).items():
                rows = products[:, 0]
                values = rows.abs().sum(dim=0) if per_sample else rows.sum(dim=0).abs()
                totals[name] += values.double().cpu()
    return {name: share.summed(total) for name, total in totals.items()}


def normalized(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the scores of every group divided by their norm."""
    return {name: values / (values.norm() + 1e-20) for name, values in scores.items()}
