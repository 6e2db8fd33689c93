"""Masks of single weights: told from masks of units, applied, followed through surgery, and counted."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, did_you_mean
from compressor.model.groups import PrunableGroup
from compressor.model.masks import Masks
from compressor.model.surgery import Family, shrink


def split_masks(model: nn.Module, groups: Sequence[PrunableGroup], masks: Masks) -> tuple[Masks, Masks]:
    """Return masks of units and masks of weights.

    Args:
        model: that the masks are of.
        groups: of this model.
        masks: per group name, shape (units,), or per parameter name, of its shape.

    Raises:
        CompressorError: a name is neither, or a weight's mask has not its shape.
    """
    names = {group.name for group in groups}
    parameters = dict(model.named_parameters())
    units, elements = {}, {}
    for name, mask in masks.keep.items():
        if name in names:
            units[name] = mask
        elif name not in parameters:
            guess = did_you_mean(name, [*names, *parameters])
            raise CompressorError(f"mask '{name}': the model has no such group or parameter{guess}")
        elif mask.shape != parameters[name].shape:
            raise CompressorError(
                f"mask '{name}': expected shape {tuple(parameters[name].shape)}, got {tuple(mask.shape)}"
            )
        else:
            elements[name] = mask
    return Masks(units), Masks(elements)


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Zero, in place, the weights that masks remove.

    Args:
        model: of the masks.
        masks: per parameter name, of its shape, ``True`` = keep.
    """
    for name, mask in masks.keep.items():
        parameter = model.get_parameter(name)
        parameter.masked_fill_(~mask.to(parameter.device), 0.0)  # not a product: -1.0 * 0 is -0.0


def shrunk_masks(
    model: nn.Module, family: Family, elements: Masks, units: Masks, *, dropped_layers: Collection[int] = ()
) -> Masks:
    """Return masks of weights as they are after units and layers were removed, under the names they then have.

    Args:
        model: before the removal.
        family: the table of its architecture.
        elements: per parameter name of ``model``, of its shape.
        units: per group name, shape (units,).
        dropped_layers: numbers of layers that go.
    """
    if not elements.keep:
        return elements
    # The masks take the way of the weights: surgery is applied to a model that holds them, and NaN everywhere else.
    ghost = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in ghost.named_parameters():
            mask = elements.keep.get(name)
            parameter.fill_(torch.nan) if mask is None else parameter.copy_(mask)
    left = shrink(ghost, family, units, dropped_layers=dropped_layers).named_parameters()
    return Masks({name: values.bool().cpu() for name, values in left if not bool(values.isnan().any())})


def removed_elements(model: nn.Module, elements: Masks) -> dict[str, dict[str, float]]:
    """Return what fraction masks of weights remove, of three denominators, each with its name.

    ``pruned_layers``: the weights that have a mask. ``linear_and_conv``: all weights of Linear and Conv layers, head and
    pooler included, embeddings, biases and LayerNorms not (neural-compressor's "matmul, Gemm, conv ratio").
    ``all_parameters``: every parameter of the model.

    Args:
        model: of the masks' shapes.
        elements: per parameter name.

    Returns:
        Per denominator ``{"removed": zeros, "of": elements, "ratio": their quotient}``.
    """
    zeros = sum(int((~mask).sum()) for mask in elements.keep.values())
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)]  # noqa: SLF001 - there is no public name for all of them
    totals: Mapping[str, int] = {
        "pruned_layers": sum(mask.numel() for mask in elements.keep.values()),
        "linear_and_conv": sum(layer.weight.numel() for layer in layers),
        "all_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    return {
        name: {"removed": zeros, "of": total, "ratio": zeros / total if total else 0.0}
        for name, total in totals.items()
    }


def zero_masks(weights: Mapping[str, Tensor]) -> Masks:
    """Return masks that keep what is not zero now: to go on training a pruned checkpoint without losing its zeros.

    Args:
        weights: by parameter name.
    """
    return Masks({name: (weight.detach() != 0).cpu() for name, weight in weights.items()})
