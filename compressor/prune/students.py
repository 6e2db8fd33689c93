"""One teacher and any number of pruned students on their way up an encoder, corrected sublayer by sublayer.

The teacher's states of one layer serve all students, and each sublayer of a student runs once: attention is stored and
given back while the FFN behind it is looked at. What is kept of a layer rests on a ``Shelf``; memory holds one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.model.groups import PrunableGroup
from compressor.model.surgery import EmptyAttention, Family
from compressor.prune.fitting import Evidence, SublayerFit, best_correction, corrected_inputs, held_out
from compressor.prune.layerwise import (
    Batch,
    LayerCall,
    Run,
    TokenWeights,
    layer_names,
    record,
    replay,
    stopped,
    watched,
    without,
)
from compressor.prune.shelf import Shelf
from compressor.prune.solve import Correction


@dataclass(frozen=True)
class Visit:
    """One batch, what each layer is called with, and which of its rows are held out (B,)."""

    number: int
    batch: Batch
    calls: dict[str, LayerCall]
    held: Tensor


class Teacher:
    """The model as it comes in: what students should come close to.

    Args:
        model: in eval mode; stays as it is.
        family: the table of its architecture.
        batches: gives the calibration batches on the model's device, the same ones in the same order every time.
        shelf: where states rest.
        token_weights: from a batch and a group to how much each token counts in its sublayer, shape (B, T).
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        *,
        batches: Callable[[], Iterable[Batch]],
        shelf: Shelf,
        token_weights: TokenWeights,
    ) -> None:
        self.model, self.family, self.shelf = model, family, shelf
        self.batches, self.token_weights = batches, token_weights
        self.groups = family.groups(model)
        self.layers = layer_names(self.groups)
        self._calls: dict[str, LayerCall] = {}

    def start(self, run: Run | None = None) -> None:
        """Store what the lowest layer reads.

        Args:
            run: see ``record``: the caller may want more of the same pass.
        """
        for number, batch in enumerate(self.batches()):
            hidden, self._calls = record(self.model, self.layers, batch, run)
            for name in ("bottom", "teacher"):
                self.shelf.put(name, number, hidden)

    def visits(self) -> Iterator[Visit]:
        """Yield every batch with the calls of its layers, which cost the embeddings alone."""
        first = 0
        for number, batch in enumerate(self.batches()):
            with without(self.model, self._calls, self.layers):
                hidden, calls = record(self.model, self.layers, batch)
            yield Visit(number, batch, calls, held_out(first, len(hidden), hidden.device))
            first += len(hidden)

    def own(self, layer: str) -> list[PrunableGroup]:
        """Return the groups of a layer that have units."""
        return [group for group in self.groups if group.layer == layer and group.units]

    @torch.no_grad()
    def advance(self, layer: str) -> None:
        """Run the teacher through a layer; store what each of its sublayers reads, and gives before LayerNorm."""
        own = self.own(layer)
        with watched(self.model, own) as seen:
            for visit in self.visits():
                hidden = self.shelf.get("teacher", visit.number)
                self.shelf.put("teacher", visit.number, replay(self.model, layer, visit.calls[layer], hidden))
                for group in own:
                    self.shelf.put(f"read-{group.kind}", visit.number, seen[group.name].residual)
                    self.shelf.put(f"wanted-{group.kind}", visit.number, seen[group.name].before_norm)


class Student:
    """A pruned copy of the teacher, its units really gone.

    Args:
        teacher: at the lowest layer.
        model: the pruned copy, corrected in place.
        name: its own on the shelf.
        undo_drift: whether the inputs of a sublayer are mapped back to the teacher's before the sublayer is corrected.

    Attributes:
        fits: what became of each sublayer.
        drifts: what became of each sublayer's inputs.
    """

    def __init__(self, teacher: Teacher, model: nn.Module, *, name: str, undo_drift: bool = True) -> None:
        self.teacher, self.model, self.name, self.undo_drift = teacher, model, name, undo_drift
        self.fits: list[SublayerFit] = []
        self.drifts: list[SublayerFit] = []

    @torch.no_grad()
    def climb(self, layer: str) -> None:
        """Correct the sublayers of a layer that the teacher has just passed, from bottom to top, and pass it too."""
        now = {group.name: group for group in self.teacher.family.groups(self.model)}
        below: list[PrunableGroup] = []
        for whole in self.teacher.own(layer):
            group = now[whole.name]
            if self.undo_drift and group.units and not self._at_the_bottom(group):
                self._correct_inputs(group, below)
            self._correct_outputs(group, below)
            below.append(group)
        for visit in self.teacher.visits():
            with self._resumed(below, visit):
                hidden = replay(self.model, layer, visit.calls[layer], self._hidden(layer, visit))
            self.teacher.shelf.put(self.name, visit.number, hidden)

    def _hidden(self, layer: str, visit: Visit) -> Tensor:
        return self.teacher.shelf.get("bottom" if layer == self.teacher.layers[0] else self.name, visit.number)

    def _at_the_bottom(self, group: PrunableGroup) -> bool:
        return group.layer == self.teacher.layers[0] and group.name == self.teacher.own(group.layer)[0].name

    def _resumed(self, below: list[PrunableGroup], visit: Visit) -> AbstractContextManager[None]:
        """Give back the attention that was computed already, inside a ``with`` block."""
        done = next((group for group in below if group.kind == "heads" and group.units), None)
        if done is None:
            return nullcontext()
        return remembered(self.model, done, self.teacher.shelf.get(f"{self.name}-attention", visit.number))

    def _correct_inputs(self, group: PrunableGroup, below: list[PrunableGroup]) -> None:
        """Map what a sublayer reads back to what the teacher's reads, by a linear map folded into its producers."""
        first: Any = self.model.get_submodule(group.producers[0].module)
        evidence = Evidence.empty(first.in_features, first.in_features, self.teacher.shelf.device)
        with watched(self.model, [group]) as seen:
            for visit in self.teacher.visits():
                with self._resumed(below, visit), stopped(first, before=True):
                    replay(self.model, group.layer, visit.calls[group.layer], self._hidden(group.layer, visit))
                read = seen[group.name].residual
                missed = self.teacher.shelf.get(f"read-{group.kind}", visit.number) - read
                evidence.add(read, missed, weights=visit.batch["attention_mask"], held=visit.held)
        correction, fit = corrected_inputs(group, evidence)
        self.drifts.append(fit)
        if correction is not None:
            for name in dict.fromkeys(piece.module for piece in group.producers):
                _fold(self.model.get_submodule(name), correction)

    def _correct_outputs(self, group: PrunableGroup, below: list[PrunableGroup]) -> None:
        """Re-fit what a sublayer's consumer makes of its inputs to what the teacher's sublayer gives."""
        consumer: Any = self.model.get_submodule(group.consumer.module)
        columns = group.units * group.width
        evidence = Evidence.empty(columns, consumer.out_features, self.teacher.shelf.device)
        with watched(self.model, [group]) as seen:
            for visit in self.teacher.visits():
                with self._resumed(below, visit), stopped(consumer):
                    replay(self.model, group.layer, visit.calls[group.layer], self._hidden(group.layer, visit))
                passed = seen[group.name]
                if group.kind == "heads" and group.units:
                    self.teacher.shelf.put(f"{self.name}-attention", visit.number, passed.activations)
                errors = self.teacher.shelf.get(f"wanted-{group.kind}", visit.number) - passed.before_norm
                weights = self.teacher.token_weights(visit.batch, group)
                evidence.add(passed.activations[..., :columns], errors, weights=weights, held=visit.held)
        weight = consumer.weight if columns else torch.zeros(consumer.out_features, 0)
        correction, fit = best_correction(group, "weights", weight, evidence, whole=True)
        self.fits.append(fit)
        if correction is None:
            return
        if columns:
            consumer.weight.copy_(consumer.weight.double() + correction.weight)
        if consumer.bias is not None:
            consumer.bias.copy_(consumer.bias.double() + correction.bias)


def _fold(producer: Any, correction: Correction) -> None:
    """Let a Linear read ``x + dW x + db`` where it read x."""
    weight = producer.weight.double()
    if producer.bias is not None:
        producer.bias.copy_(producer.bias.double() + weight @ correction.bias)
    producer.weight.copy_(weight + weight @ correction.weight)


class _Remembered(EmptyAttention):
    """Stands in for an attention block that was run before.

    Shape:
        Input: anything. Output: what the block gave, and None in place of attention probabilities.
    """

    def __init__(self, activations: Tensor, projection: str = "", consumer: Any = None) -> None:
        super().__init__(projection, consumer)
        self.activations = activations

    def forward(self, *_: Any, **__: Any) -> tuple[Tensor, None]:
        return super().forward(self.activations)


@contextmanager
def remembered(model: nn.Module, group: PrunableGroup, activations: Tensor) -> Iterator[None]:
    """Let an attention's consumer read what is given, inside a ``with`` block; the attention is not computed.

    Args:
        model: any model the group describes.
        group: of heads.
        activations: what the consumer read, shape (B, T, units * width).
    """
    block, inner = model.get_submodule(group.block), group.inner_consumer
    consumer = model.get_submodule(group.consumer.module) if inner else None
    try:
        model.set_submodule(group.block, _Remembered(activations, inner, consumer))
        yield
    finally:
        model.set_submodule(group.block, block)
