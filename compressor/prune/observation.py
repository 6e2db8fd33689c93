"""Show calibration rows to a criterion: gradients of weights, and what their layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.outputs import raw_output
from compressor.prune.capture import Batch, Signals, frozen
from compressor.prune.sharing import Share

Observe = Callable[..., None]
"""``CriterionRun.observe``."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """What is shown of every batch.

    Attributes:
        names: of the weights, e.g. ``encoder.layer.0.output.dense.weight``.
        needs: ``"gradients"``, ``"activations"``, both, or neither: then the weights are shown once, without a batch.
        signals: what is differentiated, e.g. the loss of every sample: from raw outputs and batch to shape (B, K).
        together: one observation with the gradient of all batches in place of one per batch, added in float64.
        share: that the batches are of, where together: then the gradient is that of all processes' batches.
    """

    names: Sequence[str]
    needs: frozenset[str]
    signals: Signals
    together: bool = False
    share: Share = field(default_factory=Share)


def show_batches(model: nn.Module, observe: Observe, batches: Iterable[Batch], showing: Showing) -> None:
    """Call ``observe`` with the weights, and with what the criterion needs of every batch.

    Args:
        model: in eval mode; comes out unchanged.
        observe: of a criterion at work.
        batches: on the model's device.
        showing: of what.
    """
    weights = {name: model.get_parameter(name) for name in showing.names}
    if not showing.needs:
        observe(weights=weights, gradients={}, activations={})
        return
    summed: dict[str, Tensor] = {}
    for batch in batches:
        with inputs_read(model, showing, batch) as activations:
            found = list(_gradients(model, weights, batch, showing))
        if not showing.together:
            for gradients in found:
                observe(weights=weights, gradients=gradients, activations=activations)
            continue
        for gradients in found:
            for name, gradient in gradients.items():
                summed[name] = summed[name] + gradient if name in summed else gradient.double()
    if showing.together:
        total = {name: showing.share.summed(gradient).to(weights[name]) for name, gradient in summed.items()}
        observe(weights=weights, gradients=total, activations={})


def _gradients(
    model: nn.Module, weights: Mapping[str, Tensor], batch: Batch, showing: Showing
) -> Iterator[dict[str, Tensor]]:
    """Yield, per signal, the gradients of its sum over the batch; or nothing but run the batch."""
    if "gradients" not in showing.needs:
        with torch.no_grad():
            raw_output(model, batch)
        yield {}
        return
    with frozen(model), torch.enable_grad():
        for weight in weights.values():
            weight.requires_grad_(True)
        signals = showing.signals(raw_output(model, batch), batch)
        count = signals.shape[1]
        for index in range(count):
            found = torch.autograd.grad(
                signals[:, index].sum(), list(weights.values()), retain_graph=index < count - 1, allow_unused=True
            )
            yield {name: value for name, value in zip(weights, found, strict=True) if value is not None}


@contextmanager
def inputs_read(model: nn.Module, showing: Showing, batch: Batch) -> Iterator[dict[str, Tensor]]:
    """Collect, inside a ``with`` block, what the layers of the weights read: real tokens only, (tokens, in_features)."""
    read: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, inputs: read.update({name: real_tokens(inputs[0].detach(), batch)})

    with ExitStack() as stack:
        for name in showing.names if "activations" in showing.needs else ():
            module = model.get_submodule(name.removesuffix(".weight"))
            stack.enter_context(module.register_forward_pre_hook(watch(name)))
        yield read


def real_tokens(hidden: Tensor, batch: Batch) -> Tensor:
    """Return hidden states without padding, shape (tokens, D).

    Args:
        hidden: of every token, shape (B, T, D), or of every sample, (B, D).
        batch: with ``attention_mask`` (B, T).
    """
    mask = batch["attention_mask"].bool()
    return hidden[mask] if hidden.shape[:-1] == mask.shape else hidden.flatten(0, -2)
