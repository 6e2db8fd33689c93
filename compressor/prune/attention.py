"""Attention maps of any family, read off what query and key projections give: one layer's maps at a time.

sdpa computes no maps, and transformers' switches for it differ between versions. A group of heads names its query, key and
value projections, which is all that a map needs: ``softmax(q k' / sqrt(width))`` over the real tokens. That the model
attends in this way is not assumed but checked: the maps times the values must be what the group's consumer reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, InputError
from compressor.model.groups import ParamSlice, PrunableGroup

ShowMaps = Callable[[PrunableGroup, Tensor], None]
"""Takes a group and its maps, shape (B, heads, T, T): probabilities over keys, rows of padding among them."""
TOLERANCE = 1e-3
"""Largest difference between maps times values and what the consumer reads, relative to the largest of the latter."""


@contextmanager
def shown_maps(
    model: nn.Module, groups: Sequence[PrunableGroup], mask: Tensor, show: ShowMaps, *, rows: int | None = None
) -> Iterator[None]:
    """Show each layer's attention maps while a forward pass runs, inside a ``with`` block; nothing of them is kept.

    Args:
        model: in eval mode, with every unit unmasked.
        groups: of this model; emptied ones, and those that are not heads, are passed by.
        mask: which tokens of the batch are real, shape (B, T); every row has one.
        show: is called once per group and forward, bottom to top.
        rows: how many of the batch's rows to show, from the first; None = all.

    Raises:
        InputError: the family's table says that positions enter the attention.
        CompressorError: in the forward pass, where a layer does not attend as its group's projections say.
    """
    _refuse_positions(model, groups)
    made: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for group in groups:
            if group.kind != "heads" or not group.units:
                continue
            for piece in group.producers:
                producer = model.get_submodule(piece.module)
                stack.enter_context(producer.register_forward_hook(_keep(made, piece.module, rows)))
            consumer = model.get_submodule(group.consumer.module)
            stack.enter_context(consumer.register_forward_pre_hook(_show(made, group, mask[:rows], show)))
        yield


def _refuse_positions(model: Any, groups: Sequence[PrunableGroup]) -> None:
    how = next((group.positions for group in groups if group.positions), "")
    if how:
        raise InputError(
            f"attention maps of {model.config.model_type} cannot be read off its queries and keys: it attends with {how}",
            hint="use a method that reads no maps: heads with criterion output-norm or curvature, obs, fisher or kprune",
        )


def _keep(made: dict[str, Tensor], name: str, rows: int | None) -> Callable[[nn.Module, Any, Tensor], None]:
    return lambda _, __, output: made.__setitem__(name, output.detach()[:rows])


def _show(
    made: dict[str, Tensor], group: PrunableGroup, mask: Tensor, show: ShowMaps
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        with torch.no_grad():
            query, key, value = (_by_head(made[piece.module], group.units, piece) for piece in group.producers)
            maps = attention(query, key, mask)
            _check(group, maps @ value, inputs[0].detach()[: len(mask)], mask)
        for piece in group.producers:
            made.pop(piece.module, None)  # a fused projection is one module
        show(group, maps)

    return hook


def _by_head(made: Tensor, units: int, piece: ParamSlice) -> Tensor:
    """Return a projection's output by heads, shape (B, units, T, width)."""
    own = made[..., piece.offset : piece.offset + units * piece.width]
    return own.reshape(*own.shape[:2], units, piece.width).transpose(1, 2)


def attention(query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
    """Return attention probabilities, shape (B, heads, T, T).

    Args:
        query: shape (B, heads, T, width).
        key: shape (B, heads, T, width).
        mask: which keys are real, shape (B, T).
    """
    weights = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    hidden = ~mask.bool()[:, None, None, :]
    return weights.masked_fill(hidden, float("-inf")).softmax(dim=3)


def _check(group: PrunableGroup, given: Tensor, read: Tensor, mask: Tensor) -> None:
    """Compare what the maps make of the values, shape (B, heads, T, width), with what the consumer read, (B, T, columns)."""
    real = mask.bool()
    expected, found = read[real], given.transpose(1, 2).flatten(2)[real]
    if expected.shape == found.shape:
        difference, scale = float((expected - found).abs().max()), float(expected.abs().max())
        if difference <= TOLERANCE * max(scale, TOLERANCE):
            return
    raise CompressorError(
        f"{group.name}: attention maps cannot be read: softmax(q k' / sqrt(width)) times the values is not what "
        f"{group.consumer.module} reads",
        hint="this model attends in another way than its family's table says; use a method that reads no maps",
    )
