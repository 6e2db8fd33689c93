"""Per-sample gradients of unit gates, in one pass.

A gate multiplies what a group's consumer reads. Its gradient for one sample is the sum, over the sample's tokens and
the unit's coordinates, of activation times gradient: no gate has to be put into the graph, and samples do not mix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.outputs import raw_output

Batch = Mapping[str, Tensor]
Signals = Callable[[Tensor, Batch], Tensor]
"""From the raw output of a batch and the batch to K scalars per sample, shape (B, K)."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Switch off the gradients of all parameters inside a ``with`` block."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def consumer_inputs(model: nn.Module, groups: Sequence[PrunableGroup]) -> Iterator[dict[str, Tensor]]:
    """Collect, inside a ``with`` block, what each group's consumer read in the last forward: (B, T, units * width).

    The lowest of them becomes a leaf that requires a gradient, so the graph of a frozen model starts there.
    """
    read: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            read[name] = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_()
            return (read[name], *inputs[1:])

        return hook

    with ExitStack() as stack:
        for group in groups:
            if group.units:
                consumer = model.get_submodule(group.consumer.module)
                stack.enter_context(consumer.register_forward_pre_hook(watch(group.name)))
        yield read


def gate_gradients(
    model: nn.Module, groups: Sequence[PrunableGroup], batches: Iterable[Batch], signals: Signals
) -> dict[str, Tensor]:
    """Return the gradient of every sample's signals with respect to every unit's gate, at gates of one.

    Exact per sample, hence independent of padding, batch order and batch size (post-training pruning as published
    squares batch means instead). One forward and K backward passes over activations; weights get no gradient.

    Args:
        model: in eval mode.
        groups: of this model; emptied ones give shape (n, K, 0).
        batches: on the model's device.
        signals: what is differentiated, e.g. the loss of every sample.

    Returns:
        Per group name, on the CPU, in the model's dtype, shape (n, K, units), samples in the order of the batches.
    """
    parts: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    with frozen(model), consumer_inputs(model, groups) as read, torch.enable_grad():
        for batch in batches:
            scalars = signals(raw_output(model, batch), batch)
            for name, products in gate_products(scalars, groups, read).items():
                parts[name].append(products.cpu())
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def gate_products(scalars: Tensor, groups: Sequence[PrunableGroup], read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gate gradients of one batch: per group name, shape (B, K, units), on the scalars' device.

    Args:
        scalars: K of every sample, shape (B, K), computed inside ``consumer_inputs``.
        groups: those that were watched; emptied ones give shape (B, K, 0).
        read: what ``consumer_inputs`` collected.
    """
    rows, count = scalars.shape
    products = {group.name: scalars.new_zeros(rows, count, group.units) for group in groups}
    watched = [group for group in groups if group.name in read]
    for index in range(count if watched else 0):
        inputs = [read[group.name] for group in watched]
        gradients = torch.autograd.grad(
            scalars[:, index].sum(), inputs, retain_graph=index < count - 1, allow_unused=True, materialize_grads=True
        )
        for group, activations, gradient in zip(watched, inputs, gradients, strict=True):
            summed = (activations.detach() * gradient).sum(dim=1)
            products[group.name][:, index] = summed.reshape(rows, group.units, group.width).sum(dim=2)
    return {name: product.detach() for name, product in products.items()}
