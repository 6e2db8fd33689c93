"""The numerics of ``flap``: fluctuation, scores, masks, biases. Imports torch, so the declaration imports it late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.model import Masks, PrunableGroup, encoder_macs, raw_output, unit_prices
from compressor.plugin import Pruned
from compressor.prune import consumer_inputs, real_tokens, threshold_masks

if TYPE_CHECKING:
    from compressor.run.session import Session
    from compressor_flap import Flap

TINY = 1e-12


@dataclass(frozen=True)
class Moments:
    """What a consumer reads, over all real tokens of the calibration rows.

    Attributes:
        mean: of every column, shape (units * width,), float64.
        variance: likewise, unbiased.
    """

    mean: Tensor
    variance: Tensor


def prune(method: Flap, session: Session) -> Pruned:
    """Run the whole method on a session."""
    groups = [group for group in session.groups if group.units]
    moments = activation_moments(session, groups)
    scores = {group.name: unit_scores(method, session.model, group, moments[group.name]) for group in groups}
    length = method.target.sequence or session.calibration.mean_length
    prices = unit_prices(session.model, groups, length)
    dense = encoder_macs(session.teacher, session.family.groups(session.teacher), length)
    lowest = min(float(values.min()) for values in scores.values())
    # threshold_masks compares scores per price: multiplied by the price, the threshold is on the scores themselves.
    priced = {group.name: (scores[group.name] - lowest) * prices[group.kind] for group in groups}
    masks = threshold_masks(groups, priced, prices=prices, budget=(method.target.macs or 1.0) * dense)
    biases = compensated_biases(session.model, groups, moments, masks) if method.compensate else {}
    return Pruned(masks, biases, {"sequence": length})


def activation_moments(session: Session, groups: list[PrunableGroup]) -> Mapping[str, Moments]:
    """Return mean and variance of what every group's consumer reads, in one pass over the calibration rows."""
    count = 0
    sums: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    with torch.no_grad(), consumer_inputs(session.model, groups) as read:
        for batch in session.calibration.batches(session.device):
            raw_output(session.model, batch)
            count += int(batch["attention_mask"].sum())
            for name, hidden in read.items():
                tokens = real_tokens(hidden.detach(), batch).double()
                sums[name] = sums.get(name, 0) + tokens.sum(dim=0)
                squares[name] = squares.get(name, 0) + tokens.square().sum(dim=0)
    means = {name: total / count for name, total in sums.items()}
    return {
        name: Moments(mean, (squares[name] - count * mean.square()).clamp_min(0) / max(count - 1, 1))
        for name, mean in means.items()
    }


def unit_scores(method: Flap, model: nn.Module, group: PrunableGroup, moments: Moments) -> Tensor:
    """Return the score of every unit of a group, shape (units,), float64: the mean of its columns' scores."""
    columns = moments.variance
    if method.metric == "wifv":
        columns = columns * model.get_submodule(group.consumer.module).weight.double().square().sum(dim=0)
    if method.standardize:
        columns = (columns - columns.mean()) / columns.std().clamp_min(TINY)
    return columns.unflatten(0, (group.units, group.width)).mean(dim=1)


def compensated_biases(
    model: nn.Module, groups: list[PrunableGroup], moments: Mapping[str, Moments], masks: Masks
) -> dict[str, Tensor]:
    """Return new biases of the consumers, by parameter name: they gain what removed units gave on average."""
    biases = {}
    for group in groups:
        consumer = model.get_submodule(group.consumer.module)
        gone = (~masks.keep[group.name]).repeat_interleave(group.width).to(consumer.weight.device)
        mean = moments[group.name].mean * gone
        if consumer.bias is not None and bool(gone.any()):
            biases[f"{group.consumer.module}.bias"] = consumer.bias + (consumer.weight.double() @ mean).to(
                consumer.bias
            )
    return biases
