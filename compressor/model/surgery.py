"""Masking units for a while, and removing them (and whole layers, see ``depth.py``) for good.

A unit's output is what the consumer reads, so zeroing the consumer's input columns equals removing the unit's rows and
columns. One mechanism, written as slices, serves every family (transformers 5 has neither head masks nor
``prune_heads``).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, did_you_mean
from compressor.model import depth, shapes
from compressor.model.emptied import BiasOnly, EmptyAttention, EmptyFeedForward
from compressor.model.groups import ParamSlice, PrunableGroup
from compressor.model.masks import Masks


class Family(Protocol):
    """What surgery needs to know of a model family."""

    def groups(self, model: nn.Module) -> tuple[PrunableGroup, ...]:
        """Return the prunable groups of the model as it is now."""

    def fixed_layers(self, model: nn.Module, /) -> Mapping[int, str]:
        """Return the layers that cannot be dropped, by number, each with the reason."""

    def after_shrink(self, model: nn.Module) -> None:
        """Adjust what slices cannot express."""


@contextmanager
def masked(model: nn.Module, groups: Sequence[PrunableGroup], keep: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply what each consumer reads by its group's mask, inside a ``with`` block.

    Args:
        model: any model the groups describe.
        groups: of this model.
        keep: per group name, shape (units,): bool, or float gates, through which gradients flow. Groups left out are
            untouched.

    Raises:
        CompressorError: a mask has no group, or not the shape of its group.
    """
    _check_masks(groups, keep)
    with ExitStack() as stack:
        for group in groups:
            if group.name in keep and group.units:
                consumer = model.get_submodule(group.consumer.module)
                gate = keep[group.name].repeat_interleave(group.width)
                stack.enter_context(consumer.register_forward_pre_hook(_multiply_by(gate)))
        yield


def _multiply_by(gate: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0] * gate.to(inputs[0]), *inputs[1:])

    return hook


def shrink(
    model: nn.Module,
    family: Family,
    masks: Masks,
    weights: Mapping[str, Tensor] | None = None,
    *,
    dropped_layers: Collection[int] = (),
) -> nn.Module:
    """Return a smaller copy of a model: masked units and dropped layers physically gone; the model stays as it is.

    The copy has the model's class, device, dtype and ``requires_grad`` flags, is in eval mode, and says in
    ``config.pruned_shapes`` and ``config.kept_layers`` which units and layers of the dense model it kept.

    Args:
        model: dense, or pruned before.
        family: the table of the model's architecture.
        masks: per group name, shape (units,), ``True`` = keep; groups left out keep everything.
        weights: replacements for parameters of ``model``, by name and in full shape, copied in before the removal.
        dropped_layers: numbers of whole layers of ``model`` that go, whatever the masks say of them.

    Raises:
        CompressorError: a mask or a weight does not fit the model, no layer would be left, or one would go that cannot.
    """
    groups = family.groups(model)
    _check_masks(groups, masks.keep)
    depth.check(groups, dropped_layers, family.fixed_layers(model) if dropped_layers else {})
    result = copy.deepcopy(model)
    _copy_weights(result, weights or {})
    stay = [group for group in groups if group.index not in dropped_layers]
    kept = {name: mask.nonzero().flatten().tolist() for name, mask in masks.keep.items()}
    _reshape(result, stay, kept)
    shapes.record(result.config, stay, kept)
    if dropped_layers:
        depth.drop(result, groups, dropped_layers)
        shapes.record_layers(result.config, groups, dropped_layers)
    family.after_shrink(result)
    return result.eval()


def apply_shapes(model: nn.Module, groups: Sequence[PrunableGroup], kept_counts: Mapping[str, int]) -> None:
    """Give a freshly built dense model, in place, the shapes of a pruned one; which units stay does not matter yet.

    Works on meta tensors, so that ``from_pretrained`` can fill in the weights afterwards.

    Args:
        model: dense.
        groups: of this model.
        kept_counts: units left, per group name; groups left out keep everything.
    """
    _reshape(model, groups, {name: range(count) for name, count in kept_counts.items()})


def _check_masks(groups: Sequence[PrunableGroup], keep: Mapping[str, Tensor]) -> None:
    units = {group.name: group.units for group in groups}
    for name, mask in keep.items():
        if name not in units:
            raise CompressorError(f"mask '{name}': the model has no such group{did_you_mean(name, units)}")
        if mask.shape != (units[name],):
            raise CompressorError(f"mask '{name}': expected shape ({units[name]},), got {tuple(mask.shape)}")


def _copy_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        if name not in parameters:
            raise CompressorError(f"weight '{name}': the model has no such parameter{did_you_mean(name, parameters)}")
        if weight.shape != parameters[name].shape:
            raise CompressorError(
                f"weight '{name}': expected shape {tuple(parameters[name].shape)} of the unpruned model, "
                f"got {tuple(weight.shape)}"
            )
        with torch.no_grad():
            parameters[name].copy_(weight)


def _reshape(model: nn.Module, groups: Sequence[PrunableGroup], kept: Mapping[str, Sequence[int]]) -> None:
    """Remove every unit that is not kept. All slices of one module go at once: removing shifts the indices behind."""
    removed: dict[tuple[str, int], list[int]] = defaultdict(list)
    for group in groups:
        stay = kept.get(group.name, range(group.units))
        gone = sorted(set(range(group.units)) - set(stay))
        if not gone:
            continue
        if not stay:
            _empty(model, group)
            continue
        for piece in (*group.producers, group.consumer):
            removed[piece.module, piece.dim] += _indices(piece, gone)
        block = model.get_submodule(group.block)
        for counter, multiple in group.counters.items():
            if hasattr(block, counter):
                setattr(block, counter, multiple * len(stay))
    for (name, dim), indices in removed.items():
        _remove(_linear(model, name), dim, indices)


def _indices(piece: ParamSlice, units: Sequence[int]) -> list[int]:
    return [piece.offset + unit * piece.width + column for unit in units for column in range(piece.width)]


def _remove(linear: nn.Linear, dim: int, indices: Sequence[int]) -> None:
    # from_pretrained builds models under torch.device("meta"); which indices stay must be computed for real.
    stay = torch.ones(linear.weight.shape[dim], dtype=torch.bool, device="cpu")
    stay[torch.tensor(indices, device="cpu")] = False
    index = stay.nonzero().flatten().to(linear.weight.device)
    linear.weight = _selected(linear.weight, dim, index)
    if dim == 1:
        linear.in_features = len(index)
        return
    linear.out_features = len(index)
    if linear.bias is not None:
        linear.bias = _selected(linear.bias, 0, index)


def _selected(parameter: Tensor, dim: int, index: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().index_select(dim, index), requires_grad=parameter.requires_grad)


def _empty(model: nn.Module, group: PrunableGroup) -> None:
    """Replace a sublayer that lost every unit by its bias; residual and LayerNorm stay."""
    left_over = BiasOnly(_linear(model, group.consumer.module))
    if group.kind == "ffn_neurons" and group.inner_consumer:
        model.set_submodule(group.block, EmptyFeedForward(group.inner_consumer, left_over))
    elif group.kind == "ffn_neurons":
        model.set_submodule(group.block, nn.Identity())
        model.set_submodule(group.consumer.module, left_over)
    elif group.inner_consumer:
        model.set_submodule(group.block, EmptyAttention(group.inner_consumer, left_over))
    else:
        model.set_submodule(group.block, EmptyAttention())
        model.set_submodule(group.consumer.module, left_over)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    module = model.get_submodule(name)
    if not isinstance(module, nn.Linear):
        raise CompressorError(f"{name}: the family's table expects a Linear, found {type(module).__name__}")
    return module
