"""The numerics of ``drop-layers``: what the output loses without each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.model import Masks
from compressor.model.costs import kept_macs
from compressor.model.outputs import raw_output
from compressor.model.shapes import layer_ids
from compressor.plugin import Pruned, Target
from compressor.progress import track
from compressor.prune import layer_names, record, resumed
from compressor.prune.layerwise import without
from compressor_plugins.methods._report import Stopwatch, dense_macs

if TYPE_CHECKING:
    from compressor.prune.layerwise import Batch, LayerCall
    from compressor.run.session import Session
    from compressor_plugins.methods.drop_layers import DropLayers


def prune_all(method: DropLayers, session: Session, targets: Sequence[Target]) -> Iterator[Pruned]:
    """Search once; every target takes its part of the one order in which layers are dropped.

    ``seconds`` of a later result count those before it.
    """
    counts = [layers_to_keep(target, session) for target in targets]  # what cannot be met is refused before the search
    watch, trials = Stopwatch(), LeaveOneOut(session)
    with watch.phase("dense"):
        trials.start()
    order: list[int] = []
    rounds: list[dict[int, float]] = []
    for target, count in zip(targets, counts, strict=True):
        excess = max(0, len(trials.layers) - count)
        with watch.phase("scores"):
            while len(order) < excess:
                rounds.append(trials.scores(order))
                ranked = sorted(rounds[-1], key=lambda layer: (rounds[-1][layer], -layer))  # of equals the upper goes
                order += ranked[:1] if method.search == "greedy" else ranked
        needed = rounds[: excess if method.search == "greedy" else min(excess, 1)]
        pruned = _without(session, order[:excess], sequence=target.sequence, rounds=needed)
        yield replace(pruned, metrics={**pruned.metrics, "seconds": dict(watch.seconds)})


def _without(
    session: Session, dropped: Sequence[int], *, sequence: float | None, rounds: Sequence[Mapping[int, float]]
) -> Pruned:
    """Return a result, with the layers in its figures named by their numbers in the dense model."""
    masks = _masks(session, dropped)
    length = sequence or session.calibration.mean_length
    ids = layer_ids(session.model.config, session.groups)
    metrics = {
        "macs_kept": kept_macs(session.model, session.groups, masks.keep, length) / dense_macs(session, length),
        "sequence": length,
        "layers_kept": [layer for number, layer in enumerate(ids) if number not in dropped],
        "layer_scores": [{str(ids[number]): score for number, score in scores.items()} for scores in rounds],
    }
    return Pruned(masks, metrics=metrics, dropped_layers=tuple(sorted(dropped)))


def layers_to_keep(target: Target, session: Session) -> int:
    """Return how many layers the target leaves: never more than the fraction of the *dense* model's.

    Raises:
        InputError: it leaves none, or fewer than the family lets go.
    """
    dense = len(layer_names(session.family.groups(session.teacher)))
    count = math.floor((target.layers or 0.0) * dense + 1e-9)
    if not count:
        lowest = math.ceil(1000 / dense) / 1000
        raise InputError(
            f"target {target!r} keeps no layer: the dense model has {dense}; lowest reachable: {lowest}",
            hint=f"ask for layers: {lowest} or more",
        )
    for why in list(session.family.fixed_layers(session.model).values())[count:]:
        raise InputError(f"target {target!r} keeps {count} of {dense} layers, too few: {why}")
    return count


class LeaveOneOut:
    """What the output loses without one more layer, over the calibration rows.

    Attributes:
        layers: dotted names, bottom to top.
        dense: z of the dense model, a tensor per batch.
        calls: how the layers were called last; what stands in for one must answer in the same form.
    """

    def __init__(self, session: Session) -> None:
        self.session, self.model = session, session.model
        self.layers = layer_names(session.groups)
        self.fixed = session.family.fixed_layers(session.model)
        self.dense: list[Tensor] = []
        self.calls: dict[str, LayerCall] = {}

    @torch.no_grad()
    def start(self) -> None:
        """Run the dense model."""
        batches = self.session.calibration.batches(self.session.device)
        self.dense = [self._output(self.session.teacher, batch) for batch in batches]

    @torch.no_grad()
    def scores(self, dropped: Collection[int]) -> dict[int, float]:
        """Return the mean divergence from the dense outputs without each further layer, by number.

        Args:
            dropped: numbers of layers that are left out already.
        """
        left = [number for number in range(len(self.layers)) if number not in dropped]
        totals, rows = {number: 0.0 for number in left if number not in self.fixed}, 0
        batches = track(self.session.calibration.batches(self.session.device), "Layers", total=len(self.dense))
        with without(self.model, self.calls, [self.layers[number] for number in dropped]):
            for batch, dense in zip(batches, self.dense, strict=True):
                read = self._layer_inputs(batch, [self.layers[number] for number in left])
                rows += len(dense)
                for number in totals:
                    z = self._without(self.layers[number], batch, read)
                    totals[number] += float(self.session.task.divergences(z, dense).double().sum())
        return {number: total / rows for number, total in totals.items()}

    def _layer_inputs(self, batch: Batch, layers: Sequence[str]) -> dict[str, Tensor]:
        """Run a batch; return what each layer reads, shape (B, T, D), and remember how it is called."""
        read: dict[str, Tensor] = {}

        def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            return lambda _, inputs: read.update({name: inputs[0]})

        def run(model: nn.Module, batch: Batch) -> None:
            with ExitStack() as stack:
                for name in layers:
                    stack.enter_context(model.get_submodule(name).register_forward_pre_hook(watch(name)))
                raw_output(model, batch)

        _, calls = record(self.model, layers, batch, run)
        self.calls |= calls
        return read

    def _without(self, layer: str, batch: Batch, read: dict[str, Tensor]) -> Tensor:
        """Return z of the model without a layer: only the layers above it are run."""
        calls = {name: self.calls[name] for name in read}
        with without(self.model, calls, [layer]), resumed(self.model, calls, layer, read[layer]):
            return self._output(self.model, batch)

    def _output(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.session.task.output(raw_output(model, batch), batch)


def _masks(session: Session, dropped: Collection[int]) -> Masks:
    """Return masks that keep everything but the dropped layers."""
    return Masks({group.name: torch.full((group.units,), group.index not in dropped) for group in session.groups})
