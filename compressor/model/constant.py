"""Units that zeroed weights have made constant or unread: what can go for good, and what must be said in their stead.

A unit is read through its columns of the consumer. Where those are zero nobody misses it. Where what makes it is zero, it
is the same for every token: the activation of a bias (a neuron), or the value bias, since attention weights add up to one
(a head). The consumer's bias can say that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.outputs import raw_output

PROBE = 5
"""A token that is no padding in any vocabulary, unless there are fewer."""


@torch.no_grad()
def removable_units(
    model: nn.Module, groups: Sequence[PrunableGroup], *, aligned: Collection[str] = ()
) -> tuple[Masks, dict[str, Tensor]]:
    """Return masks of the units that can go without changing the output, and the biases that then say what they gave.

    A head goes as a whole or not at all; rows and columns of the residual stream are no units and stay.

    Args:
        model: zeros in place; stays as it is.
        groups: of this model.
        aligned: parameters whose zeros follow a grid; groups that share one lose nothing.

    Returns:
        ``True`` = keep, per group that loses something, shape (units,); and new values of consumers' biases, by
        parameter name.
    """
    keep: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for group in groups:
        names = {f"{piece.module}.weight" for piece in (*group.producers, group.consumer)}
        if not group.units or names & set(aligned):
            continue
        consumer: Any = model.get_submodule(group.consumer.module)
        unread = ~_any(consumer.weight, group.units, offset=group.consumer.offset, width=group.width, dim=1)
        constant = _constant(model, group) & ~unread
        if bool(constant.any()):
            given = _given(model, group) * constant.repeat_interleave(group.width)
            if consumer.bias is None:
                constant &= ~_any(given.unsqueeze(0), group.units, offset=0, width=group.width, dim=1)
            else:
                biases[f"{group.consumer.module}.bias"] = _folded(consumer, group, given)
        gone = unread | constant
        if bool(gone.any()):
            keep[group.name] = (~gone).cpu()
    return Masks(keep), biases


def _any(weight: Tensor, units: int, *, offset: int, width: int, dim: int) -> Tensor:
    """Tell, per unit, whether any of its rows (``dim=0``) or columns holds a number but zero, shape (units,)."""
    own = weight.narrow(dim, offset, units * width).transpose(0, dim)
    return (own != 0).reshape(units, -1).any(dim=1)


def _constant(model: nn.Module, group: PrunableGroup) -> Tensor:
    """Tell, per unit, whether it gives the same for every token: a head by its values, a neuron by all that makes it."""
    makers = group.producers[-1:] if group.kind == "heads" else group.producers
    weights = ((piece, model.get_parameter(f"{piece.module}.weight")) for piece in makers)
    varies = [_any(weight, group.units, offset=piece.offset, width=piece.width, dim=0) for piece, weight in weights]
    return ~torch.stack(varies).any(dim=0)


def _given(model: nn.Module, group: PrunableGroup) -> Tensor:
    """Return what the consumer reads for a lone token, shape (units * width,): constant units give that to every token."""
    read: list[Tensor] = []
    encoder: Any = model
    token = min(PROBE, encoder.get_input_embeddings().num_embeddings - 1)
    ids = torch.full((1, 1), token, device=next(model.parameters()).device)
    consumer = model.get_submodule(group.consumer.module)
    with consumer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0])):
        raw_output(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return read[0].flatten()


def _folded(consumer: Any, group: PrunableGroup, given: Tensor) -> Tensor:
    """Return the consumer's bias with what constant units gave added, shape (out,)."""
    columns = consumer.weight.narrow(1, group.consumer.offset, len(given)).double()
    folded: Tensor = (consumer.bias.double() + columns @ given.double()).to(consumer.bias.dtype)
    return folded
