"""How a pattern cuts the weights that were chosen; what is wrong where none is left to cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from compressor.errors import InputError
from compressor.model.weights import WeightFilter, filtered_weights
from compressor.progress import announced
from compressor.prune import cut_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from compressor.model.blocks import Blocks
    from compressor.plugin import SparsityPattern

NAMED = 6
"""Most layers that a message names."""


def layouts_of(
    model: nn.Module, weights: Mapping[str, Tensor], pattern: SparsityPattern, label: str
) -> tuple[dict[str, Blocks], dict[str, str]]:
    """Return how the weights that can take a pattern are cut, and why the others cannot, by parameter name.

    Args:
        model: that they are of.
        weights: those chosen.
        pattern: that cuts them.
        label: what chose them, for messages.

    Raises:
        InputError: none was chosen, or none can take the pattern.
    """
    if not weights:
        known = [_layer(name) for name in filtered_weights(model, WeightFilter())]
        raise InputError(
            f"{label}: op_names, excluded_op_names and pruning_op_types choose no layer; expected some of {len(known)}, "
            f"such as {', '.join(known[:NAMED])}",
            hint="correct the expressions: they are searched in such names",
        )
    layouts, skipped = cut_weights(weights, pattern.blocks)
    if not layouts:
        raise InputError(
            f"{label}: none of the {len(weights)} chosen weights can take the pattern {pattern.label}; "
            f"{min(skipped)}: {skipped[min(skipped)]}",
            hint="choose another pattern, or other layers by op_names",
        )
    return layouts, skipped


def say_skipped(skipped: Mapping[str, str], pattern: SparsityPattern, label: str) -> None:
    """Say once which weights stay dense."""
    if skipped:
        named = [_layer(name) for name in sorted(skipped)]
        more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
        announced.warning(
            "%s: %s%s stay dense under pattern %s: %s",
            label,
            ", ".join(named[:NAMED]),
            more,
            pattern.label,
            skipped[min(skipped)],
        )


def _layer(name: str) -> str:
    return name.removesuffix(".weight")
