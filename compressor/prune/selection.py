"""From scores of elements to masks of weights: patterns, scopes, bounds and an exact budget in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from compressor.errors import InputError
from compressor.model.blocks import Blocks, Reduction
from compressor.model.masks import Masks, Scores
from compressor.prune.thresholds import Layer, lowest_blocks, lowest_per_row

Scope = Literal["global", "local", "row"]
Unit = Literal["elements", "blocks"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How weights are compared.

    Attributes:
        scope: one threshold over all weights; one per weight; or one per row of blocks (bounds do not apply).
        unit: what a sparsity counts: elements, or blocks. In N:M always elements.
        reduction: from elements to the score of their block.
        minimum: least fraction of every weight that goes, in the unit.
        maximum: largest fraction of any weight that goes, in the unit.
    """

    scope: Scope = "global"
    unit: Unit = "elements"
    reduction: Reduction = "mean"
    minimum: float = 0.0
    maximum: float = 1.0

    def at(self, sparsity: float, *, final: float) -> Selection:
        """Return the same on the way to a final sparsity: the minimum grows in proportion, and is due at the end."""
        minimum = self.minimum * min(1.0, sparsity / final) if final else 0.0
        return Selection(
            scope=self.scope, unit=self.unit, reduction=self.reduction, minimum=minimum, maximum=self.maximum
        )


def select_masks(scores: Scores, layouts: Mapping[str, Blocks], sparsity: float, selection: Selection) -> Masks:
    """Return masks, ``True`` = keep, under which the fraction ``sparsity`` goes, exact to the block.

    Args:
        scores: of the elements, by parameter name, shape (out, in); higher = keep. Their order decides ties.
        layouts: how each is cut.
        sparsity: fraction to remove of all weights together, of each, or of each row.
        selection: how weights are compared.

    Raises:
        InputError: the bounds, or the pattern, do not allow this sparsity.
    """
    names = list(scores)
    if selection.scope == "row":
        return Masks({name: _by_row(scores[name], layouts[name], sparsity, selection.reduction) for name in names})
    pools = [[name] for name in names] if selection.scope == "local" else [names]
    removed: dict[str, Tensor] = {}
    for pool in pools:
        layers = [_layer(scores[name], layouts[name], selection) for name in pool]
        wanted = sparsity * sum(_units(scores[name], layouts[name], selection) for name in pool)
        _check(pool, layers, wanted)
        removed |= dict(zip(pool, lowest_blocks(layers, wanted), strict=True))
    return Masks({name: layouts[name].expand(removed[name], scores[name]).cpu() for name in names})


def partway(before: Masks, after: Masks, scores: Scores, share: float) -> Masks:
    """Return masks between two events: a share of the weights that are about to go is gone, lowest score first.

    neural-compressor's progressive mode as it was meant: over all layers, weights and not blocks. What the next event would
    bring back waits for it.

    Args:
        before: masks of the last event, by parameter name.
        after: masks of the next event, of the same weights.
        scores: of the elements.
        share: in [0, 1].
    """
    doomed = {name: keep & ~after.keep[name] for name, keep in before.keep.items()}
    layers = [Layer(scores[name].cpu()[goes], price=1, least=0, most=int(goes.sum())) for name, goes in doomed.items()]
    removed = lowest_blocks(layers, share * sum(layer.most for layer in layers))
    result = {name: keep.clone() for name, keep in before.keep.items()}
    for (name, goes), gone in zip(doomed.items(), removed, strict=True):
        result[name][goes] = ~gone
    return Masks(result)


def _by_row(scores: Tensor, blocks: Blocks, sparsity: float, reduction: Reduction) -> Tensor:
    fraction = sparsity * blocks.size / blocks.dropped
    reduced = blocks.reduce(scores, reduction).reshape(blocks.grid(tuple(scores.shape)))
    return blocks.expand(lowest_per_row(reduced, min(fraction, 1.0)).flatten(), scores).cpu()


def _price(blocks: Blocks, selection: Selection) -> int:
    return blocks.dropped if selection.unit == "elements" or blocks.partial else 1


def _units(scores: Tensor, blocks: Blocks, selection: Selection) -> int:
    return scores.numel() if selection.unit == "elements" or blocks.partial else scores.numel() // blocks.size


def _layer(scores: Tensor, blocks: Blocks, selection: Selection) -> Layer:
    price, units = _price(blocks, selection), _units(scores, blocks, selection)
    most = min(math.floor(selection.maximum * units / price + 0.5), scores.numel() // blocks.size)
    least = min(math.ceil(selection.minimum * units / price - 1e-9), most)
    return Layer(blocks.reduce(scores, selection.reduction), price, least, most)


def _check(pool: list[str], layers: list[Layer], wanted: float) -> None:
    most, least = (sum(layer.price * getattr(layer, end) for layer in layers) for end in ("most", "least"))
    slack = max((layer.price for layer in layers), default=0) / 2
    if not least - slack <= wanted <= most + slack:
        what = f"'{pool[0]}'" if len(pool) == 1 else f"{len(pool)} weights"
        raise InputError(
            f"{what}: {wanted:.0f} should go, the bounds of the layers and the pattern allow {least} to {most}",
            hint="change the target, or min_sparsity_ratio_per_op and max_sparsity_ratio_per_op",
        )


def cut_weights(
    weights: Mapping[str, Tensor], blocks: Callable[[tuple[int, int]], Blocks | None]
) -> tuple[dict[str, Blocks], dict[str, str]]:
    """Return how each weight is cut, and why some are not, both by parameter name.

    Args:
        weights: by parameter name.
        blocks: of a pattern: from a shape (out, in) to blocks, or None where it does not divide.
    """
    layouts: dict[str, Blocks] = {}
    skipped: dict[str, str] = {}
    for name, weight in weights.items():
        found = blocks((weight.shape[0], weight.shape[1])) if weight.ndim == 2 else None  # noqa: PLR2004 - a matrix
        if found is None:
            skipped[name] = f"shape {tuple(weight.shape)} does not divide into blocks"
        else:
            layouts[name] = found
    return layouts, skipped
