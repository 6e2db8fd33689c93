"""What one pass over the dense model tells of every sublayer: how its inputs vary, and which errors of its output count.

With y the output of a sublayer before LayerNorm and g the gradients at y of scalars whose squared gradients add up to
the Hessian of the divergence (``Task.curvature``), an error e of y at one token costs ``1/2 (g'e)^2`` at that token. Its mean
over tokens is ``1/2 tr(G E)``, G and E the second moments of g and e: errors and gradients are taken as independent of
each other and between tokens (as in K-FAC, Martens and Grosse, https://arxiv.org/abs/1503.05671).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.outputs import raw_output
from compressor.prune.capture import Signals, frozen
from compressor.prune.layerwise import TokenWeights
from compressor.prune.solve import Moments

TINY = 1e-300
NEGLIGIBLE = 1e-3
"""Share of the curvature's trace whose directions are left out of the metric."""


class SublayerStatistics:
    """Second moments of one sublayer, accumulated in float64; they do not grow with the rows.

    Attributes:
        inputs: of what the consumer reads, weighted by how much each token counts.
        gradients: of the gradients at the consumer's output, over the same tokens, each counted once.
        rows: how many samples were seen.
    """

    def __init__(self, columns: int, outputs: int, device: torch.device, *, intercept: bool = True) -> None:
        self.inputs = Moments(columns, 0, device, intercept=intercept)
        self.gradients = Moments(outputs, 0, device)
        self.rows = 0

    def add(self, activations: Tensor, gradients: Tensor, weights: Tensor) -> None:
        """Take in one batch.

        Args:
            activations: what the consumer read, shape (B, T, columns).
            gradients: of K scalars per sample at what the consumer gave, shape (K, B, T, D).
            weights: how much each token counts, shape (B, T); 0 = padding.
        """
        tokens = weights > 0
        weight = weights[tokens].to(activations)
        self.inputs.add(activations[tokens], activations.new_zeros(len(weight), 0), weight)
        for gradient in gradients:
            seen = gradient[tokens]
            self.gradients.add(seen, seen.new_zeros(len(seen), 0), torch.ones_like(weight))
        self.rows += len(activations)

    @property
    def mean(self) -> Tensor:
        """Return the mean of the consumer's inputs, shape (columns,)."""
        return self.inputs.activations / max(self.inputs.weight, TINY)

    @property
    def covariance(self) -> Tensor:
        """Return the covariance of the consumer's inputs, shape (columns, columns): the mean is the bias's to keep.

        Of a consumer without bias it is their second moments.
        """
        moments = self.inputs.gram / max(self.inputs.weight, TINY)
        return moments.addr_(self.mean, self.mean, alpha=-1) if self.inputs.intercept else moments

    @property
    def metric(self) -> Tensor:
        """Return R with ``1/2 |R' e|^2`` summed over a row's tokens the divergence that errors e cost, shape (D, R)."""
        values, vectors = torch.linalg.eigh(self.gradients.gram / max(self.rows, 1))
        values = values.flip(0).clamp_min(0)
        left_out = values.flip(0).cumsum(0).flip(0)
        rank = int((left_out > NEGLIGIBLE * values.sum()).sum())
        metric: Tensor = vectors.flip(1)[:, :rank] * values[:rank].sqrt()
        return metric


@contextmanager
def consumer_passes(
    model: nn.Module, groups: Sequence[PrunableGroup]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Collect, inside a ``with`` block, what each group's consumer read and gave in the last forward, by group name.

    The lowest output becomes a leaf that requires a gradient, so the graph of a frozen model starts there.
    """
    read: dict[str, Tensor] = {}
    gave: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            read[name] = inputs[0].detach()
            gave[name] = output if output.requires_grad else output.detach().requires_grad_()
            return gave[name]

        return hook

    with ExitStack() as stack:
        for group in groups:
            if group.units:
                consumer = model.get_submodule(group.consumer.module)
                stack.enter_context(consumer.register_forward_hook(watch(group.name)))
        yield read, gave


class DensePass:
    """Statistics of every sublayer of a model: run batches through, then read them.

    Args:
        model: in eval mode, on the device of the batches.
        groups: of this model; emptied ones have no statistics.
        signals: K scalars of every sample whose squared gradients add up to the Hessian of the divergence.
        token_weights: from a batch and a group to how much each token counts, shape (B, T).

    Attributes:
        statistics: by group name.
    """

    def __init__(
        self, model: nn.Module, groups: Sequence[PrunableGroup], *, signals: Signals, token_weights: TokenWeights
    ) -> None:
        self.groups = [group for group in groups if group.units]
        self.signals, self.token_weights = signals, token_weights
        self.statistics = {group.name: _empty(model, group) for group in self.groups}

    def run(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Run one batch forward, and backward over activations once per scalar."""
        with frozen(model), consumer_passes(model, self.groups) as (read, gave), torch.enable_grad():
            scalars = self.signals(raw_output(model, batch), batch)
            outputs = [gave[group.name] for group in self.groups]
            parts = [
                torch.autograd.grad(scalars[:, index].sum(), outputs, retain_graph=index < scalars.shape[1] - 1)
                for index in range(scalars.shape[1] if outputs else 0)
            ]
        for group, *gradients in zip(self.groups, *parts, strict=True):
            weights = self.token_weights(batch, group)
            self.statistics[group.name].add(read[group.name], torch.stack(gradients), weights)


def _empty(model: nn.Module, group: PrunableGroup) -> SublayerStatistics:
    consumer: Any = model.get_submodule(group.consumer.module)
    weight = consumer.weight
    return SublayerStatistics(weight.shape[1], weight.shape[0], weight.device, intercept=consumer.bias is not None)
