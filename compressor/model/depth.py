"""Leaving out whole layers: for a while, and for good.

A layer is attention, FFN, both residuals and both LayerNorms; without it, the next one reads what it read. What is left
is a plain model of fewer layers, which transformers loads by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model.groups import PrunableGroup


@contextmanager
def skipped(model: nn.Module, groups: Sequence[PrunableGroup], layers: Collection[int]) -> Iterator[None]:
    """Let layers give back the hidden states that they read, inside a ``with`` block; they are computed in vain.

    What ``drop`` must equal, as ``masked`` is for units.

    Args:
        model: in which layers read hidden states as their first positional argument.
        groups: of this model.
        layers: their numbers, from 0 at the bottom.

    Raises:
        CompressorError: the model has no such layer, or it is called in another way.
    """
    with ExitStack() as stack:
        for name in _names(groups, layers):
            stack.enter_context(model.get_submodule(name).register_forward_hook(_give_back(name)))
        yield


def _give_back(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not args or not isinstance(args[0], Tensor):
            raise CompressorError(f"{name}: expected the hidden states as first argument")
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    return hook


def check(groups: Sequence[PrunableGroup], layers: Collection[int], fixed: Mapping[int, str] | None = None) -> None:
    """Refuse to drop layers that are not there, that cannot go, or all of them.

    Args:
        groups: of the model.
        layers: their numbers.
        fixed: layers that cannot go, with the reasons.

    Raises:
        CompressorError: the numbers are not of layers of the model or of fixed ones, or no layer would be left.
    """
    present = {group.index for group in groups}
    unknown = sorted(set(layers) - present)
    if unknown:
        raise CompressorError(f"dropped layer {unknown[0]}: the model has layers 0 to {max(present, default=-1)}")
    for layer in sorted(set(layers) & set(fixed or {})):
        raise CompressorError(f"dropped layer {layer}: it cannot go: {(fixed or {})[layer]}")
    if layers and present <= set(layers):
        raise CompressorError(
            f"dropped layers {sorted(layers)}: expected at least one of {len(present)} layers to stay"
        )


def drop(model: nn.Module, groups: Sequence[PrunableGroup], layers: Collection[int]) -> None:
    """Remove whole layers in place; those above move down. What configs say of it is ``shapes.record_layers``.

    Args:
        model: whose layers stand in one ``nn.ModuleList``.
        groups: of this model.
        layers: their numbers, from 0 at the bottom.

    Raises:
        CompressorError: see ``check``; or a layer does not stand in a ``ModuleList``.
    """
    check(groups, layers)
    gone = _names(groups, layers)
    for parent in dict.fromkeys(name.rpartition(".")[0] for name in gone):
        siblings = model.get_submodule(parent)
        if not isinstance(siblings, nn.ModuleList):
            raise CompressorError(f"{parent}: expected a ModuleList of layers, found {type(siblings).__name__}")
        left = [module for number, module in siblings.named_children() if f"{parent}.{number}" not in gone]
        for number, layer in enumerate(left):
            _renumber(layer, number)
        model.set_submodule(parent, nn.ModuleList(left))


def _names(groups: Sequence[PrunableGroup], layers: Collection[int]) -> dict[str, None]:
    check(groups, layers)
    return dict.fromkeys(group.layer for group in groups if group.index in layers)


def _renumber(layer: nn.Module, number: int) -> None:
    """Tell the modules of a layer its new number, where they know the old one (transformers keys caches by it)."""
    for module in layer.modules():
        if getattr(module, "layer_idx", None) is not None:
            module.layer_idx = number  # type: ignore[assignment]  # nn.Module's types know tensors and modules only
