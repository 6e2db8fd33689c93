"""Which weights of a model are pruned element by element, chosen by name and by kind of layer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from compressor.errors import InputError

EMBEDDINGS = re.compile(r"(?:^|\.)embeddings(?:_|\.|$)")
"""Lookup tables, and ELECTRA's projection of them, are never pruned."""


@dataclass(frozen=True, kw_only=True)
class WeightFilter:
    """Which layers' weights are meant.

    Attributes:
        op_names: regular expressions, one of which is found in the layer's dotted name; empty = every layer.
        excluded_op_names: regular expressions, none of which may be found there; they win.
        pruning_op_types: texts, one of which is part of the name of the layer's class.
        include_head: whether the task head's last layer is meant too.
    """

    op_names: Sequence[str] = ()
    excluded_op_names: Sequence[str] = ()
    pruning_op_types: Sequence[str] = ("Linear",)
    include_head: bool = False


def head_name(model: nn.Module) -> str | None:
    """Return the dotted name of the task head's last Linear, or None for a bare encoder."""
    prefix = getattr(model, "base_model_prefix", "")
    if not prefix or not hasattr(model, prefix):
        return None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return next((name for name in reversed(linear) if not name.startswith(f"{prefix}.")), None)


def filtered_weights(model: nn.Module, wanted: WeightFilter) -> dict[str, Tensor]:
    """Return the weights that a filter means, by parameter name, in the model's order: shape (out, in) or more.

    The head is left out by its exact name: ``classifier`` says nothing of ``pre_classifier``.

    Args:
        model: any model.
        wanted: names and kinds.
    """
    head = None if wanted.include_head else head_name(model)
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        kind = any(text in type(module).__name__ for text in wanted.pruning_op_types)
        matrix = isinstance(weight, nn.Parameter) and weight.ndim >= 2  # noqa: PLR2004 - a matrix
        if kind and matrix and name != head and not EMBEDDINGS.search(name) and _named(name, wanted):
            found[f"{name}.weight"] = weight
    return found


def divided_weights(model: nn.Module, wanted: Sequence[WeightFilter]) -> list[dict[str, Tensor]]:
    """Return the weights of several filters, each of which belongs to one of them only.

    Raises:
        InputError: two filters mean the same layer, whose masks would multiply and whose ratio would count twice.
    """
    parts = [filtered_weights(model, one) for one in wanted]
    for number, part in enumerate(parts):
        for other, later in enumerate(parts[number + 1 :], start=number + 1):
            both = part.keys() & later.keys()
            if both:
                raise InputError(
                    f"blocks {number} and {other} both mean {min(both).removesuffix('.weight')} ({len(both)} layers in common)",
                    hint="make op_names narrower, or exclude the layers from one of them; '.*output' also finds "
                    "'attention.output.dense'",
                )
    return parts


def _named(name: str, wanted: WeightFilter) -> bool:
    if any(re.search(pattern, name) for pattern in wanted.excluded_op_names):
        return False
    return not wanted.op_names or any(re.search(pattern, name) for pattern in wanted.op_names)
