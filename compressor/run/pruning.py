"""What a method's result makes of a model: weights copied in, masks applied, what became empty removed, all of it proved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.model import surgery
from compressor.model.constant import removable_units
from compressor.model.depth import skipped
from compressor.model.elements import apply_masks, removed_elements, shrunk_masks, split_masks
from compressor.model.masks import Masks
from compressor.model.outputs import at_real_tokens, raw_output
from compressor.plugin.components import Pruned
from compressor.run.calls import NamedFamily
from compressor.run.session import Session

REMOVAL_TOLERANCE = 1e-4
"""Largest difference between the masked and the shrunk model's outputs, relative to the largest output."""


@dataclass(frozen=True)
class Applied:
    """A pruned model.

    Attributes:
        model: smaller where units or layers went, with zeros where weights did.
        weight_masks: per parameter name of ``model``.
        aligned: those of them that follow a grid.
        figures: plain data for the report.
    """

    model: nn.Module
    weight_masks: Masks
    aligned: frozenset[str]
    figures: dict[str, Any]


def checked_pruned(found: Any) -> Pruned:
    """Return what a method gave.

    Raises:
        CompressorError: it is no ``Pruned`` with masks.
    """
    if not (isinstance(found, Pruned) and isinstance(found.masks, Masks)):
        what = type(found.masks if isinstance(found, Pruned) else found).__name__
        raise CompressorError(
            f"prune returned {'masks of type ' if isinstance(found, Pruned) else ''}{what}; expected Pruned(masks=Masks)"
        )
    return found


def applied(session: Session, family: NamedFamily, pruned: Pruned) -> Applied:
    """Return the session's model as a method's result makes it; the session stays as it is.

    Masks of weights add to those of earlier steps, whatever new weights the method gives. What they leave empty (neurons,
    whole heads) is removed too, and what it still gave goes into a bias.

    Raises:
        CompressorError: the result does not fit the model, or the smaller model does not give what the masked one does.
    """
    units, elements = split_masks(session.model, session.groups, pruned.masks)
    elements = session.weight_masks.merge(elements)
    whole = surgery.shrink(session.model, family, Masks({}), pruned.weights)  # nothing removed, the weights copied in
    apply_masks(whole, elements)
    groups = family.groups(whole)
    aligned = session.aligned.union(pruned.aligned)
    empty, biases = removable_units(whole, groups, aligned=aligned) if elements.keep else (Masks({}), {})
    gone = units.merge(empty)
    shrunk = surgery.shrink(whole, family, gone, biases, dropped_layers=pruned.dropped_layers)
    difference = _removal_difference(
        session, family, (whole, shrunk), Pruned(units, dropped_layers=pruned.dropped_layers)
    )
    figures: dict[str, Any] = {"removal_max_abs_diff": difference}
    if elements.keep:
        figures["sparsity"] = removed_elements(whole, elements)
        figures["emptied_units"] = {name: int((~mask).sum()) for name, mask in empty.keep.items()}
    on_grids = Masks({name: mask for name, mask in elements.keep.items() if name in aligned})
    masks, aligned_masks = (
        shrunk_masks(whole, family, each, gone, dropped_layers=pruned.dropped_layers) for each in (elements, on_grids)
    )
    return Applied(shrunk, masks, frozenset(aligned_masks.keep), figures)


def _removal_difference(
    session: Session, family: NamedFamily, models: tuple[nn.Module, nn.Module], pruned: Pruned
) -> float:
    """Prove on one calibration batch that removing equals masking units and skipping layers; return the difference."""
    whole, shrunk = models
    batch = next(session.calibration.batches(session.device))
    groups = family.groups(whole)
    with (
        torch.no_grad(),
        surgery.masked(whole, groups, pruned.masks.keep),
        skipped(whole, groups, pruned.dropped_layers),
    ):
        expected = raw_output(whole, batch)
    with torch.no_grad():
        found = raw_output(shrunk, batch)
    mask = batch["attention_mask"].bool()
    expected, found = (at_real_tokens(output, mask) for output in (expected, found))
    difference = float((expected - found).abs().max())
    if not difference <= REMOVAL_TOLERANCE * max(1.0, float(expected.abs().max())):
        what = "removing the masked units" + (" and the dropped layers" if pruned.dropped_layers else "")
        raise CompressorError(
            f"{what} changed the model's output by {difference:.2e}; expected what masking gives",
            hint="this is a bug of the model family's table or of the method's weights; the run stops before export",
        )
    return difference
