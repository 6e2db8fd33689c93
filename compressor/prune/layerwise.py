"""Run an encoder layer by layer from cached hidden states, without knowing its family.

A forward pass records what each layer is called with besides hidden states (attention masks and the like); afterwards
any layer runs alone, on any hidden states. Works for layers that return a tensor (transformers 5) or a tuple (4.57).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError
from compressor.model.groups import PrunableGroup
from compressor.model.outputs import raw_output

Batch = Mapping[str, Tensor]
TokenWeights = Callable[[Batch, PrunableGroup], Tensor]
"""From a batch and a group to how much every token of its sublayer counts, shape (B, T); 0 for padding."""
Run = Callable[[nn.Module, Batch], Any]


@dataclass(frozen=True)
class LayerCall:
    """What a layer was called with, hidden states aside, whether it gives them back in a tuple, and of what length."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    gives_tuple: bool
    length: int = 1


@dataclass
class Sublayer:
    """What passed through one group's sublayer in the last forward; an attribute is missing until then.

    Attributes:
        read: what the producers read, shape (B, T, D).
        residual: what the residual connection adds, shape (B, T, D); in post-LN layers the same.
        activations: what the consumer read, shape (B, T, units * width); masked if a mask was entered before.
        output: what the consumer gave, bias included, shape (B, T, D).
    """

    read: Tensor
    residual: Tensor
    activations: Tensor
    output: Tensor

    @property
    def before_norm(self) -> Tensor:
        """Return what the LayerNorm after the sublayer reads, or what a pre-LN one adds up to, shape (B, T, D)."""
        return self.residual + self.output


def layer_names(groups: Sequence[PrunableGroup]) -> tuple[str, ...]:
    """Return the dotted names of the layers that hold the groups, bottom to top."""
    return tuple(dict.fromkeys(group.layer for group in sorted(groups, key=lambda group: group.index)))


def token_weights(layers: Sequence[str], read: Callable[[Batch], Tensor]) -> TokenWeights:
    """Return weights under which the tokens that are read count in the last layer, and every real token below.

    Args:
        layers: dotted names, bottom to top.
        read: from a batch to how much each token of the last layer matters, shape (B, T).
    """

    def weights(batch: Batch, group: PrunableGroup) -> Tensor:
        real = batch["attention_mask"]
        return read(batch) * real if group.layer == layers[-1] else real

    return weights


def record(
    model: nn.Module, layers: Sequence[str], batch: Batch, run: Run | None = None
) -> tuple[Tensor, dict[str, LayerCall]]:
    """Run a batch; return what the lowest layer reads, shape (B, T, D), and per layer name how it is called.

    Args:
        model: in eval mode.
        layers: dotted names, bottom to top.
        batch: on the model's device.
        run: how to run it, where the caller wants more of the same pass; default: forward, without gradients.

    Raises:
        CompressorError: a layer is not called exactly once with its hidden states as first positional argument.
    """
    calls: dict[str, LayerCall] = {}
    inputs: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if name in calls or not args or not isinstance(args[0], Tensor):
                raise CompressorError(f"{name}: expected one call, with the hidden states as first argument")
            length = len(output) if isinstance(output, tuple) else 0
            calls[name] = LayerCall(args[1:], kwargs, gives_tuple=length > 0, length=length)
            inputs[name] = args[0].detach()

        return hook

    with ExitStack() as stack:
        for name in layers:
            layer = model.get_submodule(name)
            stack.enter_context(layer.register_forward_hook(watch(name), with_kwargs=True))
        (run or forward)(model, batch)
    if len(calls) < len(layers):
        raise CompressorError(f"{next(name for name in layers if name not in calls)}: the model does not call it")
    return inputs[layers[0]], calls


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return the raw output of a batch, without gradients."""
    with torch.no_grad():
        return raw_output(model, batch)


def replay(model: nn.Module, layer: str, call: LayerCall, hidden: Tensor) -> Tensor:
    """Run one layer on hidden states of shape (B, T, D); return what it gives, of the same shape.

    Args:
        model: the recorded one, or a pruned copy of it.
        layer: dotted name.
        call: what ``record`` noted for this layer and batch.
        hidden: what the layer reads.
    """
    output = model.get_submodule(layer)(hidden, *call.args, **call.kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


class _ReachedError(Exception):
    """Ends a layer's forward pass early; never leaves this module."""


@contextmanager
def stopped(module: nn.Module, *, before: bool = False) -> Iterator[None]:
    """End forward passes inside a ``with`` block once a module has run, or before it does; what lies behind costs nothing.

    Hooks that were registered earlier still see the module. The block itself ends there too, without an error.
    """

    def stop(*_: Any) -> None:
        raise _ReachedError

    hook = module.register_forward_pre_hook(stop) if before else module.register_forward_hook(stop)
    with hook, suppress(_ReachedError):
        yield


def replay_until(model: nn.Module, group: PrunableGroup, call: LayerCall, hidden: Tensor) -> None:
    """Run a group's layer only as far as the group's consumer: what comes behind it costs nothing.

    Args:
        model: the recorded one, or a pruned copy of it; ``watched`` sees what passes.
        group: of this model.
        call: what ``record`` noted for the layer and this batch.
        hidden: what the layer reads, shape (B, T, D).
    """
    with stopped(model.get_submodule(group.consumer.module)):
        replay(model, group.layer, call, hidden)


class _Skipped(nn.Module):
    """Stands in for a layer that is not to be run: gives the hidden states it is shown.

    Shape:
        Input: (B, T, D) and whatever else the layer is called with. Output: the same, as the layer gives it.
    """

    def __init__(self, call: LayerCall, layer: nn.Module) -> None:
        super().__init__()
        own = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        vars(self).update(own)  # encoders ask their layers, e.g. which masks to give them
        self.gives_tuple, self.rest = call.gives_tuple, (None,) * (call.length - 1)

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Any:
        return (hidden, *self.rest) if self.gives_tuple else hidden


@contextmanager
def without(model: nn.Module, calls: Mapping[str, LayerCall], layers: Iterable[str]) -> Iterator[None]:
    """Let layers pass on what they read, inside a ``with`` block, without being computed.

    Args:
        model: the recorded one, or a pruned copy of it.
        calls: what ``record`` noted.
        layers: dotted names. Their modules are put back afterwards.
    """
    originals = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in originals.items():
            model.set_submodule(name, _Skipped(calls[name], layer))
        yield
    finally:
        for name, module in originals.items():
            model.set_submodule(name, module)


@contextmanager
def resumed(model: nn.Module, calls: Mapping[str, LayerCall], layer: str, hidden: Tensor) -> Iterator[None]:
    """Let the model's forward start, inside a ``with`` block, at one layer from given hidden states.

    The layers below are not computed; embeddings are looked up and lost.

    Args:
        model: the recorded one, or a pruned copy of it.
        calls: what ``record`` noted, bottom to top.
        layer: where to start.
        hidden: what that layer reads, shape (B, T, D).
    """
    below = list(calls)[: list(calls).index(layer)]

    def inject(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (hidden, *args[1:])

    with without(model, calls, below), model.get_submodule(layer).register_forward_pre_hook(inject):
        yield


@contextmanager
def watched(model: nn.Module, groups: Sequence[PrunableGroup]) -> Iterator[dict[str, Sublayer]]:
    """Collect, inside a ``with`` block, what passes through each group's sublayer, by group name.

    Of an emptied block only the consumer's bias is left, and that module reads what the producers did; activations mean
    nothing then.
    """
    seen = {group.name: Sublayer.__new__(Sublayer) for group in groups}

    def reads(sublayer: Sublayer, attribute: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: setattr(sublayer, attribute, inputs[0])

    def gives(sublayer: Sublayer) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        return lambda _, __, output: setattr(sublayer, "output", output)

    with ExitStack() as stack:
        for group in groups:
            sublayer = seen[group.name]
            consumer = model.get_submodule(group.consumer.module)
            emptied = not group.units and (group.kind == "heads" or group.inner_consumer)
            producer = consumer if emptied else model.get_submodule(group.reader)
            entry = model.get_submodule(group.norm) if group.norm else producer
            stack.enter_context(producer.register_forward_pre_hook(reads(sublayer, "read")))
            stack.enter_context(entry.register_forward_pre_hook(reads(sublayer, "residual")))
            stack.enter_context(consumer.register_forward_pre_hook(reads(sublayer, "activations")))
            stack.enter_context(consumer.register_forward_hook(gives(sublayer)))
        yield seen
